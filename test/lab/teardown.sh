#!/bin/sh
# Takes a lab away: processes, network namespaces, mounts, settings of the machine, cgroups, files.
# Arguments: LAB_DIRECTORY [--when-owner-ends]
#
# The one way a lab ends: Lab.close() and the owner's death both close the pipe that is standard input here, and a sweep
# runs it directly. It may run twice at once or after half a teardown. The last line says what could not be removed.
trap '' INT TERM HUP
directory=$1
id=${directory##*/}
cgroup=${LAB_CGROUP_ROOT:?}/lab-$id
if [ "${2-}" = --when-owner-ends ]; then cat >/dev/null; fi

mkdir -p "${directory%/*}"
exec 9>"${directory%/*}/.$id.lock"
flock 9
if [ -d "$cgroup" ]; then
  echo 1 >"$cgroup/cgroup.kill"
  tries=0
  while grep -qs '^populated 1' "$cgroup/cgroup.events" && [ $tries -lt 500 ]; do
    sleep 0.01
    tries=$((tries + 1))
  done
  find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
fi
for namespace in /run/netns/lab-"$id"-*; do
  [ -e "$namespace" ] && ip netns delete "${namespace##*/}"
done
for mounted in "$directory"/hosts/*/disk "$directory/base"; do
  mountpoint -q "$mounted" && umount -l "$mounted"
done
if [ -f "$directory/put-back" ]; then
  while read -r file value; do echo "$value" >"$file"; done <"$directory/put-back"
fi
[ -d "$directory" ] && rm -rf --one-file-system "$directory"
rm -f "${directory%/*}/.$id.lock"

left=
[ -d "$cgroup" ] && left="$left $cgroup"
[ -d "$directory" ] && left="$left $directory"
for namespace in /run/netns/lab-"$id"-*; do [ -e "$namespace" ] && left="$left $namespace"; done
[ -z "$left" ] || { echo "not removed:$left" >&2; exit 1; }
