#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# The first process of the kernel that boot.py boots: mounts, modules, then every line of /tests.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /var/run/netns
/bin/busybox --install -s /bin
rm -f /bin/ip /bin/tc
export PATH=/usr/sbin:/sbin:/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mkdir -p /sys/fs/cgroup/unified 2>/dev/null || mount -t tmpfs cg /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/unified
mount -t cgroup2 cg2 /sys/fs/cgroup/unified
echo 0 >/proc/sys/kernel/printk
# In the order in which they need each other, found by trying.
for round in 1 2 3 4; do
	for module in /modules/*.ko; do insmod "$module" 2>/dev/null; done
done
/usr/sbin/ip link set lo up
echo "BOOTED $(uname -r)"
while read -r name command; do
	echo "BEGIN $name"
	/bin/sh -c "$command" </dev/null 2>&1
	echo "END $name $?"
done </tests
echo "DONE"
poweroff -f
