#!/bin/sh
# npm's prepare, in a checkout and when npm installs from git: builds the shim, if this machine can.
# Else it says what is missing and goes on: what is installed builds the shim when it is first used.
cd "$(dirname "$0")" || exit 1
missing() { command -v "$1" >/dev/null 2>&1 || printf ' %s' "$2"; }
compiler=${CC:-cc}
packages="$(missing "${compiler%% *}" gcc)$(missing make make)"
if [ -n "$packages" ] || ! make --no-print-directory; then
  echo "framepump: the native shim is not built, as this machine lacks something; on Debian:" \
    "apt-get install${packages:- gcc make} libc6-dev" >&2
  exit 0
fi

# Where npm takes it from for a package that is installed from git. In a checkout build/ comes first,
# and what prebuild.sh has made for the package stays.
arch=$(node -p process.arch)
libc=$(node -p "require('fs').readFileSync('/proc/self/maps', 'latin1').includes('ld-musl-') ? 'musl' : 'glibc'")
mkdir -p "prebuilds/linux-$arch"
[ -e "prebuilds/linux-$arch/framepump.$libc.node" ] ||
  cp build/Release/framepump.node "prebuilds/linux-$arch/framepump.$libc.node"
