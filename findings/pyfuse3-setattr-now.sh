#!/bin/bash
# pyfuse3 3.5.0 (libfuse 3.14 or newer, Linux 6.x): "set the time to now" reaches a file system as a
# time.
#
# `touch FILE` calls utimensat(2) with UTIME_NOW, for which write permission suffices; to set a
# time of one's choice one must own the file. The kernel tells a FUSE server which of the two was
# asked for (FATTR_MTIME_NOW). pyfuse3 reads its own clock, fills in st_mtime_ns, and sets
# update_mtime, just as for a chosen time; SetattrFields has no member for the difference.
#
# One would have guessed that a flag tells the two apart. Without it, a server that repeats the
# call on a backing file with its caller's credentials refuses `touch` by a member of a group that
# may write the file but does not own it (EPERM), which the native file system allows.
#
# Needs root, /dev/fuse, gcc, pkg-config and libfuse3-dev.
set -euo pipefail
work=$(mktemp -d)
trap 'umount -l "$work/mnt" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install --quiet pyfuse3==3.5.0 trio==0.35.0
mkdir "$work/mnt"

cat >"$work/server.py" <<'PY'
import errno
import stat
import subprocess
import sys

import pyfuse3
import trio


class Server(pyfuse3.Operations):
    """One file, `f`, that anybody may write."""

    seen = []

    def attributes(self, inode):
        found = pyfuse3.EntryAttributes()
        found.st_ino = inode
        found.st_mode = stat.S_IFDIR | 0o777 if inode == 1 else stat.S_IFREG | 0o666
        found.st_nlink = 1
        return found

    async def getattr(self, inode, ctx=None):
        return self.attributes(inode)

    async def lookup(self, parent, name, ctx=None):
        if name != b"f":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.attributes(2)

    async def setattr(self, inode, attr, fields, fh, ctx):
        told = [name for name in dir(fields) if name[0] != "_" and getattr(fields, name)]
        self.seen.append((told, attr.st_mtime_ns > 0))
        return self.attributes(inode)


async def main(mountpoint):
    server = Server()
    pyfuse3.init(server, mountpoint, {"fsname=finding"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        for command in (["touch"], ["touch", "-d", "2001-01-01"]):
            await trio.to_thread.run_sync(subprocess.run, [*command, f"{mountpoint}/f"])
        pyfuse3.terminate()
    pyfuse3.close()
    now, chosen = server.seen
    print("members of SetattrFields:", *[n for n in dir(pyfuse3.SetattrFields) if n[0] != "_"])
    print("touch f:              ", *now[0], "with a time" if now[1] else "without a time")
    print("touch -d 2001-01-01 f:", *chosen[0], "with a time" if chosen[1] else "without a time")
    sys.exit(0 if now == chosen else 1)


trio.run(main, sys.argv[1])
PY
if "$work/venv/bin/python" "$work/server.py" "$work/mnt"; then
	echo "as found: the two are told in the same way"
else
	echo "this has changed: the two are told apart" >&2
	exit 1
fi
