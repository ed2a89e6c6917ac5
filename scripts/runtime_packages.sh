#!/bin/sh
# runtime_packages.sh VENV: print the packages of Debian or Ubuntu whose shared libraries FFCV and OpenCV in VENV load,
# one a line, so that an image needs no compiler and no headers. A library that no package owns came with the base image
# and is named on stderr; one that is missing is an error.
set -eu
VENV=$1
found=$(mktemp) owners=$(mktemp)
trap 'rm -f "$found" "$owners"' EXIT
find "$VENV" \( -path '*/ffcv/*.so' -o -path '*/cv2/*.so' \) -exec ldd {} + > "$found"
if grep 'not found' "$found" >&2; then
    echo "these libraries are missing" >&2
    exit 1
fi
sed -n 's,.* => \(/[^ ]*\) (.*,\1,p' "$found" | grep -v "^$VENV" | sort -u | while read -r library; do
    dpkg-query -S "*/$(basename "$library")" 2>/dev/null | sed 's,:.*,,' | head -n 1 | grep . >> "$owners" ||
        echo "$library belongs to no package" >&2
done
sort -u "$owners"
