#!/bin/sh
# install.sh PYTHON VENV demo|test: what `make demo` and `make test` need, system packages included where root allows.
# `test` also builds FFCV where its libraries are there or may be installed, and writes to VENV/.require which optional
# packages the tests must find; what is left out is said plainly.
set -eu
PYTHON=$1 VENV=$2 TARGET=$3
HERE=$(dirname "$0")
is_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
ffcv_libraries() { pkg-config --exists opencv4 libturbojpeg 2>/dev/null && command -v g++ >/dev/null; }

if [ ! -x "$VENV/bin/python" ] && ! "$PYTHON" -c 'import ensurepip' 2>/dev/null && is_root; then
    echo "== installing python3-venv"
    sh "$HERE/install_system.sh" python
fi
sh "$HERE/install_python.sh" "$PYTHON" "$VENV" "$TARGET"
[ "$TARGET" = test ] || exit 0

require=nvidia.dali,triton,wandb,lightning,accelerate,transformers
if ! ffcv_libraries && is_root; then
    echo "== installing what FFCV is built with:$(sh "$HERE/install_system.sh" --list ffcv)"
    sh "$HERE/install_system.sh" ffcv || true
fi
if ffcv_libraries; then
    echo "== building FFCV"
    "$VENV/bin/python" -m pip --disable-pip-version-check install -q -e '.[ffcv]'
    require=$require,ffcv
else
    echo "== FFCV is left out, its tests will be skipped. As root: apt-get install$(sh "$HERE/install_system.sh" --list ffcv)"
fi
if ! command -v chromium >/dev/null && is_root; then
    echo "== installing Chromium, in which the report page is tested"
    sh "$HERE/install_system.sh" browser || true
fi
if command -v chromium >/dev/null; then
    require=$require,chromium
else
    echo "== Chromium is left out, the report page is not tested in a browser. As root: apt-get install chromium"
fi
printf '%s' "$require" > "$VENV/.require"
