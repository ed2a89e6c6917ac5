#!/bin/sh
# install_system.sh GROUP...: install packages of Debian or Ubuntu, as root. A GROUP is
#   python   python3 and its venv module, which Debian keeps in a package of its own
#   compiler what torch.compile and Triton call when they run
#   ffcv     what FFCV 1.0.2 is compiled with
#   browser  Chromium, in which the report page is tested
#   @FILE    the packages listed in FILE, one a line
# `install_system.sh --list GROUP...` prints the packages and installs nothing.
set -eu

list=no
if [ "${1:-}" = --list ]; then
    list=yes
    shift
fi
packages=
for group in "$@"; do
    case $group in
        python) packages="$packages python3 python3-venv" ;;
        compiler) packages="$packages g++ python3-dev" ;;
        ffcv) packages="$packages libopencv-dev libturbojpeg0-dev pkg-config g++ python3-dev" ;;
        browser) packages="$packages chromium" ;;
        @*) packages="$packages $(tr '\n' ' ' < "${group#@}")" ;;
        *)
            echo "install_system.sh knows the groups python, compiler, ffcv, browser and @FILE, not $group" >&2
            exit 2
            ;;
    esac
done
if [ "$list" = yes ]; then
    echo "$packages"
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "only root can install packages, and only with apt-get; have someone run: apt-get install$packages" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# a mirror that cannot be reached is no failure if everything is there already
apt-get update -qq || true
# shellcheck disable=SC2086  # a list of names
apt-get install -y -qq --no-install-recommends $packages >/dev/null
