#!/bin/sh
# Turns the fresh mount, pid, uts, ipc, cgroup and network namespaces that it is started in into a host, and becomes its
# systemd. Arguments: HOST_DIRECTORY LOWER_DIRECTORIES HOST_NAME
# HOST_DIRECTORY/binds lists read-only bind mounts, one "SOURCE TARGET" a line; HOST_DIRECTORY/machine-id is kept over
# reboots.
set -eu
directory=$1 lower=$2 name=$3
root=$directory/root

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$directory/disk/upper,workdir=$directory/disk/work" "$root"
while read -r source target; do
  if [ -d "$source" ]; then mkdir -p "$root$target"; else mkdir -p "$root${target%/*}" && : >>"$root$target"; fi
  mount --bind "$source" "$root$target"
  mount -o remount,bind,ro "$root$target"
done <"$directory/binds"

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
# A host may set its own network's switches, never this machine's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
if [ -e "$root/proc/sysrq-trigger" ]; then
  mount --bind "$root/proc/sysrq-trigger" "$root/proc/sysrq-trigger"
  mount -o remount,bind,ro "$root/proc/sysrq-trigger"
fi
cat /proc/sys/kernel/random/uuid >"$directory/boot-id"
mount --bind "$directory/boot-id" "$root/proc/sys/kernel/random/boot_id"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=0755,nosuid,size=16m tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=64m tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=0755,nosuid,nodev,size=128m tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=128m tmpfs "$root/tmp"
hostname "$name"

cd "$root"
pivot_root . mnt
umount -l /mnt
# LoadCredential= and PrivateTmp= need a shared root.
mount --make-rshared /
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=no
