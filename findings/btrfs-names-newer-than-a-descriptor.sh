#!/bin/bash
# btrfs (Linux 6.5 and newer; seen on 6.18): a directory that is open shows no names that are newer
# than its descriptor, until somebody seeks.
#
# btrfs remembers at open(2) up to which index the directory is listed, so that renames during a
# listing do not make it endless, and looks again only at lseek(2). POSIX promises newer names after
# rewinddir(3), which seeks. A program that keeps a descriptor and lists it for the first time later
# does not seek: Python's os.listdir(fd) and os.scandir(fd) rewind at their end, not at their start,
# so the first listing misses what was made since the open, and each later one what was made since
# the listing before.
#
# One would have guessed that a first listing shows what is there, as on ext4, XFS and tmpfs. What
# goes wrong is a clean-up by a kept descriptor: it unlinks nothing, and rmdir(2) says ENOTEMPTY.
#
# Needs root, loop devices and btrfs-progs.
set -euo pipefail
work=$(mktemp -d)
trap 'umount -l "$work/mnt" 2>/dev/null || true; rm -rf "$work"' EXIT
truncate -s 160M "$work/image"
mkfs.btrfs -q -f "$work/image" >/dev/null
mkdir "$work/mnt"
mount -o loop "$work/image" "$work/mnt"

list() {
    python3 - "$1" <<'PY'
import os, sys

os.mkdir(f"{sys.argv[1]}/directory")
fd = os.open(f"{sys.argv[1]}/directory", os.O_RDONLY | os.O_DIRECTORY)
open(f"{sys.argv[1]}/directory/made-after-the-open", "w").close()
first = os.listdir(fd)
open(f"{sys.argv[1]}/directory/newer", "w").close()
second = os.listdir(fd)
os.lseek(fd, 0, os.SEEK_SET)
print(f"first listing: {len(first)} of 1, second: {len(second)} of 2, "
      f"after a seek: {len(os.listdir(fd))} of 2")
PY
}

mkdir "$work/other"
echo "$(stat -f -c %T "$work/other"): $(list "$work/other")"
on_btrfs=$(list "$work/mnt")
echo "btrfs: $on_btrfs"
[[ $on_btrfs == "first listing: 0 of 1, second: 1 of 2, after a seek: 2 of 2" ]]
