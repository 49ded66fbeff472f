#!/bin/sh
# Sees to it that what `make run`, `make demo`, `make test`, `make fuzz`,
# `make check-tools` and `make coverage` need is on this machine.
#
#     config/setup.sh [build|demo|test|tools]      each includes the one before it
#     config/setup.sh fuzz                         what build has, and libFuzzer
#
# It asks the tools themselves (does pkg-config know the library, does Python
# know the module) and not the package manager, so that libraries installed by
# other means count. Where all is there it says nothing and takes no time;
# where something is missing it says what, and installs it with apt. Without
# apt, or without the right to use it, it ends with one line that lists what
# to install.
#
# The list of packages stands here alone; the Dockerfile calls this script too.
set -eu

level=${1:-build}
case $level in
build | demo | test | tools | fuzz) ;;
*)
  echo "usage: $0 [build|demo|test|tools|fuzz]" >&2
  exit 2
  ;;
esac

# the last word, behind a launcher such as ccache
cc=${CC:-cc}
cc=${cc##* }
clang=${CLANG:-clang}
clang=${clang##* }
python=${PYTHON:-/usr/bin/python3}
pkg_config=${PKG_CONFIG:-pkg-config}

have() {
  command -v "$1" >/dev/null 2>&1
}

# need PACKAGE COMMAND...: PACKAGE is missing where the command fails
need() {
  package=$1
  shift
  "$@" >/dev/null 2>&1 || missing="$missing $package"
}

# gcc only recommends libc6-dev, so the headers are asked for by themselves
c_headers() {
  echo '#include <stdlib.h>' | "$cc" -E -
}

# clang alone has the compiler, and not always what its sanitizers link with
fuzzer_library() {
  ls "$("$clang" -print-runtime-dir)"/libclang_rt.fuzzer* ||
    ls "$("$clang" -print-resource-dir)"/lib/*/libclang_rt.fuzzer*
}

# Debian names its tools with and without the version.
have_either() {
  have "$1" || have "$2"
}

find_missing() {
  missing=
  need gcc have "$cc"
  need libc6-dev c_headers
  need make have make
  need pkg-config have "$pkg_config"
  need libmicrohttpd-dev "$pkg_config" --exists libmicrohttpd
  need libjansson-dev "$pkg_config" --exists jansson
  need libopenblas-dev "$pkg_config" --exists openblas
  need libsqlite3-dev "$pkg_config" --exists sqlite3
  need libxxhash-dev "$pkg_config" --exists libxxhash
  [ "$level" = build ] && return
  if [ "$level" = fuzz ]; then
    need python3 have "$python"
    need clang have "$clang"
    need libclang-rt-dev fuzzer_library
    return
  fi
  need curl have curl
  need python3 have "$python"
  [ "$level" = demo ] && return
  need check "$pkg_config" --exists check
  need strace have strace
  need clang have "$clang"
  # find_spec, because importing numpy takes longer than all the rest together
  for module in numpy pytest xdist; do
    case $module in
    xdist) package=python3-pytest-xdist ;;
    *) package=python3-$module ;;
    esac
    need "$package" "$python" -c "import importlib.util as u; exit(not u.find_spec('$module'))"
  done
  [ "$level" = test ] && return
  need clang-tidy have_either clang-tidy-14 clang-tidy
  need cppcheck have cppcheck
  need lcov have lcov
}

give_up() {
  echo "attentiond: $1; please install:$missing" >&2
  exit 1
}

find_missing
[ -n "$missing" ] || exit 0

have apt-get || give_up "there is no apt here"
as_root=
if [ "$(id -u)" -ne 0 ]; then
  have sudo || give_up "installing packages takes root or sudo"
  as_root=sudo
fi

echo "attentiond: missing on this machine:$missing"
echo "attentiond: installing with ${as_root:+sudo }apt-get; this takes a minute or two"

apt() {
  # $as_root is a command or nothing
  # shellcheck disable=SC2086
  $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" >/dev/null </dev/null
}

install_missing() {
  # $missing is a list
  # shellcheck disable=SC2086
  apt install -y --no-install-recommends "$@" $missing
}

# The package lists are fetched only where they lack a package or are so old
# that its files are gone.
if ! install_missing --simulate 2>/dev/null || ! install_missing 2>/dev/null; then
  apt update || give_up "apt-get update failed"
  install_missing || give_up "apt-get install failed"
fi

find_missing
[ -z "$missing" ] || give_up "installed, and still not to be found"
