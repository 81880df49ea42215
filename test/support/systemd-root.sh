#!/bin/sh
# The first process of a machine within the machine: makes its root file system at $1, in a mount namespace of
# its own, and becomes systemd. /usr is the machine's, everything else is new; of the machine's devices there
# are those that every container has, and TUN.
#
#   $1 where the root is to be    $2 the package, as npm would install it    $3 Node
set -eu
root=$1 package=$2 node=$3
units=/usr/lib/systemd/system

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p usr etc/systemd/system etc/framepump proc sys dev run tmp var/lib var/log root home old
chmod 1777 tmp
for name in bin sbin lib lib32 lib64; do
  if [ -L "/$name" ]; then cp -P "/$name" .; elif [ -d "/$name" ]; then mkdir "$name" && mount --rbind "/$name" "$name"; fi
done
mount --bind /usr usr
mount -o remount,bind,ro usr

# Programs as `npm install --global` puts them, where systemd finds them by their names.
mount -t tmpfs -o mode=755 tmpfs usr/local
mkdir -p usr/local/bin usr/local/lib/node_modules/framepump
touch usr/local/bin/node
mount --bind "$node" usr/local/bin/node
mount --bind "$package" usr/local/lib/node_modules/framepump
mount -o remount,bind,ro usr/local/lib/node_modules/framepump
ln -s ../lib/node_modules/framepump/dist/cli/main.js usr/local/bin/framepump

for name in passwd group nsswitch.conf ld.so.cache os-release; do
  if [ -e "/etc/$name" ]; then cp "/etc/$name" etc/; fi
done
if [ -d /etc/alternatives ]; then cp -a /etc/alternatives etc/; fi
echo framepump-test >etc/hostname
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id

# What a service needs of the system, and nothing that would change the machine: no udev, no sysctl.
for unit in sysinit.target basic.target shutdown.target umount.target network-pre.target network.target \
  multi-user.target sockets.target systemd-journald.service systemd-journald.socket \
  systemd-journald-dev-log.socket modprobe@.service; do
  cp "$units/$unit" etc/systemd/system/
done
cp usr/local/lib/node_modules/framepump/config/systemd/*.service etc/systemd/system/
mkdir etc/systemd/system/sysinit.target.wants
ln -s ../systemd-journald.service etc/systemd/system/sysinit.target.wants/

mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o nosuid,nodev,noexec,ro sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
# Were it no mount, systemd would make one.
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mkdir run/netns
mount --rbind /run/netns run/netns
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir dev/net dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for name in null zero full random urandom tty net/tun; do
  touch "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
ln -s /proc/self/fd dev/fd

pivot_root . old
umount -l /old
exec env -i container=framepump-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  SYSTEMD_UNIT_PATH=/etc/systemd/system /lib/systemd/systemd --system --unit=multi-user.target \
  --log-target=journal --show-status=no
