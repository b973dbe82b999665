# shellcheck shell=bash
# The first process of a host: makes the host's view of the machine, says that it is ready, and waits
# for the end of its input. Runs in new mount, network, pid, uts and ipc namespaces.
set -eu
dir=$1 number=$2

# Our id as the machine sees it: /proc is still the machine's.
read -r pid _ </proc/self/stat
hostname "host$number"

# What others have mounted on the machine is theirs to unmount: a copy here would keep it busy.
while read -r _ _ _ _ point rest; do
  case $rest in *" - fuse"* | *" /dev/loop"*) umount -l "$point" 2>/dev/null || true ;; esac
done <<<"$(tac /proc/self/mountinfo)"
mount -t proc proc /proc

# sysfs shows the network of whoever mounts it; control groups are mounted inside the old one.
if [ -d /sys/fs/cgroup ]; then
  mkdir -p "$dir/cgroup"
  mount --rbind /sys/fs/cgroup "$dir/cgroup"
  mount -t sysfs sysfs /sys
  mount --rbind "$dir/cgroup" /sys/fs/cgroup
  umount -l "$dir/cgroup"
fi

# What outlives a power cut lies in the host's directory, the rest in memory. /mnt and /var/lib are
# the host's own so that no mount point need be made on the machine.
mount --bind "$dir/hosts" /etc/hosts
mount --bind "$dir/mnt" /mnt
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir /var/lib/mooring
mount --bind "$dir/disk" /var/lib/mooring
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/docker/plugins

# Last, since mounts made shared earlier would be copied into what is mounted later.
mount --make-rshared /
echo "ready $pid"

# bash, as process 1, reaps the host's orphans while it waits.
read -r _ || true

# The test process is gone. What was mounted here tells a later sweep which loop devices were ours.
cat /proc/self/mountinfo >"$dir/mounts" 2>/dev/null || true
