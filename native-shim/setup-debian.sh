#!/usr/bin/env bash
# Installs what prebuild.sh needs, and the packages that are named, on Debian 12 on x64 or arm64. As
# root, or with sudo. Running it again does no harm.
set -euo pipefail

musl=${FRAMEPUMP_MUSL_DIR:-/opt/framepump-musl}
packages=(gcc libc6-dev "$@")
case $(dpkg --print-architecture) in
  amd64) packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
  arm64) packages+=(gcc-x86-64-linux-gnu libc6-dev-amd64-cross) ;;
esac

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# musl and the kernel's headers of both architectures: unpacked only, by a package index of their own,
# so that the machine need not know the other architecture.
if [ ! -e "$musl/complete" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  for architecture in amd64 arm64; do
    mkdir -p "$work/$architecture"/{lists,archives}/partial
    options=(
      -qq -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture"
      -o "Dir::State::lists=$work/$architecture/lists" -o "Dir::Cache=$work/$architecture"
      -o APT::Sandbox::User=root
    )
    apt-get "${options[@]}" update
    (cd "$work" && apt-get "${options[@]}" download musl musl-dev linux-libc-dev)
  done
  as_root mkdir -p "$musl"
  for package in "$work"/*.deb; do
    dpkg --fsys-tarfile "$package" | as_root tar -x -C "$musl" --exclude=./usr/share
  done
  as_root touch "$musl/complete"
fi
