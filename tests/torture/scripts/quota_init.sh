#!/bin/bash
# The first process of a user-mode Linux, whose kernel has the quotas that the machine's own may lack.
# The whole machine is its root, read-only; ubdb is an ext4 image, ubdc an XFS image. Arguments come in the environment.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
finish() { echo o > /proc/sysrq-trigger; sleep 60; }
trap finish EXIT
set -e
mount -t proc proc /proc
mount -t tmpfs -o size=16m volumes /mnt
modules=/usr/lib/uml/modules/$(uname -r)/kernel/fs/quota
insmod "$modules/quota_tree.ko"
insmod "$modules/quota_v2.ko"
mkdir /mnt/ext4 /mnt/xfs
mount -t ext4 -o usrquota,grpquota,prjquota /dev/ubdb /mnt/ext4
mount -t xfs -o uquota,pquota /dev/ubdc /mnt/xfs
for volume in /mnt/ext4 /mnt/xfs; do
    setquota -u 1000 8192 10240 0 0 $volume
    setquota -u 1001 0 0 0 5 $volume
    mkdir $volume/project
done
setquota -g 2000 0 6144 0 0 /mnt/ext4
chattr -p 7 +P /mnt/ext4/project
setquota -P 7 0 5120 0 0 /mnt/ext4
xfs_quota -x -c "project -s -p /mnt/xfs/project 7" -c "limit -p bhard=5m 7" /mnt/xfs > /dev/null
chmod 777 /mnt/*/ /mnt/*/project
"$OUTLAST_PYTHON" -B "$OUTLAST_SCRIPT"
