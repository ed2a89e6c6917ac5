#!/bin/sh
# install.sh PYTHON VENV demo|test: make the virtual environment and install what the target needs.
# `test` also builds FFCV where its Debian packages are there or may be installed, and writes to VENV/.require which
# optional packages the tests must find; what is left out is said plainly.
set -eu
PYTHON=$1 VENV=$2 TARGET=$3
DEBIAN_PACKAGES="libopencv-dev libturbojpeg0-dev pkg-config g++ python3-dev"
FFCV=ffcv==1.0.2

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "prunekd needs Python 3.10 or newer; $PYTHON is $("$PYTHON" --version). Use: make $TARGET PYTHON=python3.11" >&2
    exit 1
}
if [ ! -x "$VENV/bin/python" ]; then
    echo "== virtual environment $VENV"
    if ! "$PYTHON" -m venv "$VENV" 2>/dev/null; then
        # Debian and Ubuntu keep ensurepip in a package of its own; without root, virtualenv from a zipapp would need
        # the network beyond pip, so say what is missing
        rm -rf "$VENV"
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
            "$PYTHON" -m venv "$VENV"
        else
            echo "$PYTHON cannot make virtual environments: apt-get install python3-venv (as root), then try again" >&2
            exit 1
        fi
    fi
fi
PIP="$VENV/bin/python -m pip --disable-pip-version-check"

if [ "$TARGET" = demo ]; then
    echo "== installing prunekd"
    $PIP install -q -e '.'
    exit 0
fi

echo "== installing prunekd with its test tools and DALI"
$PIP install -q -e '.[test,dev,dali]'
REQUIRE=nvidia.dali,triton

libraries() { pkg-config --exists opencv4 libturbojpeg 2>/dev/null && command -v g++ >/dev/null; }
if ! libraries && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "== installing the Debian packages FFCV is built with: $DEBIAN_PACKAGES"
    apt-get update -qq || true
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $DEBIAN_PACKAGES >/dev/null || true
fi
if libraries; then
    echo "== building FFCV"
    $PIP install -q "$FFCV"
    REQUIRE=$REQUIRE,ffcv
else
    echo "== FFCV is left out: its tests will be skipped. It needs (as root): apt-get install $DEBIAN_PACKAGES"
fi
printf '%s' "$REQUIRE" > "$VENV/.require"
