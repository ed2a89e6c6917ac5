#!/bin/sh
# install_python.sh PYTHON VENV demo|test|lowest|image: make the virtual environment and install prunekd for
#   demo    `prunekd demo`, from the working tree
#   test    the tests and linters, from the working tree
#   lowest  the tests with the versions that CONSTRAINTS pins, without linters and DALI
#   image   a container: the packages prunekd depends on, and prunekd itself as the working tree has it now
# What else it looks at: EXTRAS (extras of an image, default ffcv), CONSTRAINTS (a file of pinned versions),
# TORCH_INDEX (another index that has torch), VENV_OPTIONS (say --system-site-packages, to build upon what is there).
set -eu
PYTHON=$1 VENV=$2 TARGET=$3

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "prunekd needs Python 3.10 or newer; $PYTHON is $("$PYTHON" --version). Try: make PYTHON=python3.11" >&2
    exit 1
}
if [ ! -x "$VENV/bin/python" ]; then
    echo "== virtual environment $VENV"
    # shellcheck disable=SC2086  # a list of options
    "$PYTHON" -m venv ${VENV_OPTIONS:-} "$VENV" || {
        rm -rf "$VENV"
        echo "$PYTHON cannot make virtual environments: apt-get install python3-venv (as root), then try again" >&2
        exit 1
    }
fi

case $TARGET in
    demo) set -- -e . ;;
    test) set -- -e '.[test,dev,dali,examples]' ;;
    lowest) set -- -e '.[test]' ;;
    image) set -- ".[${EXTRAS:-ffcv}]" ;;
    *)
        echo "install_python.sh installs for demo, test, lowest or image, not for $TARGET" >&2
        exit 2
        ;;
esac
[ -z "${CONSTRAINTS:-}" ] || set -- -c "$CONSTRAINTS" "$@"
[ -z "${TORCH_INDEX:-}" ] || set -- --extra-index-url "$TORCH_INDEX" "$@"
echo "== pip install $*"
"$VENV/bin/python" -m pip --disable-pip-version-check install -q "$@"
