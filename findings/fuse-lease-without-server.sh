#!/bin/bash
# Linux 6.18 (FUSE), with pyfuse3 3.5.0 as the server: a file lease is granted on a FUSE mount, and
# the server is never asked.
#
# fcntl(F_SETLEASE) gives a program exclusive knowledge of a file: it is told before anybody else
# opens the file for writing. NFS refuses a lease unless its server delegated the file, and CIFS
# asks its server for an oplock. FUSE grants it from what this one mount has open. A writer that
# comes to the same file by its server's other ways (the backing file itself, a second mount of the
# same server) neither waits nor breaks the lease, and the lease still counts as held afterwards.
#
# One would have guessed EINVAL, or a request to the server. A program that takes a lease through a
# FUSE mount to make sure that a file stays as it is has proved nothing; the lease must be taken on
# the backing file.
#
# Needs root, /dev/fuse, gcc, pkg-config and libfuse3-dev.
set -euo pipefail
work=$(mktemp -d)
trap 'umount -l "$work/mnt" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install --quiet pyfuse3==3.5.0 trio==0.35.0
mkdir "$work/mnt"
echo before >"$work/backing"

cat >"$work/server.py" <<'PY'
import errno
import os
import stat
import subprocess
import sys

import pyfuse3
import trio

HOLDER = """
import errno, fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)  # of a lease that is broken; the default ends us
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print("a read lease on the mounted file: granted")
with open(sys.argv[2], "r+b", 0) as file:  # the server's own file
    file.write(b"after!")
print("the backing file was opened for writing and written meanwhile")
held = fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK
print("the lease is", "still held; the mount shows:" if held else "lost; the mount shows:",
      os.pread(fd, 100, 0).decode().strip())
try:
    os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
    seen = False
except BlockingIOError:
    seen = True
print("a writer through the mount itself is", "noticed" if seen else "not noticed")
sys.exit(0 if held and seen else 1)
"""


class Server(pyfuse3.Operations):
    """One file, `f`, whose bytes are those of a backing file."""

    requests = []

    def __init__(self, backing):
        super().__init__()
        self.backing = backing

    def attributes(self, inode):
        found = pyfuse3.EntryAttributes()
        found.st_ino = inode
        found.st_mode = stat.S_IFDIR | 0o755 if inode == 1 else stat.S_IFREG | 0o644
        found.st_nlink = 1
        found.st_size = 0 if inode == 1 else os.stat(self.backing).st_size
        return found

    async def getattr(self, inode, ctx=None):
        return self.attributes(inode)

    async def lookup(self, parent, name, ctx=None):
        if name != b"f":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.attributes(2)

    async def open(self, inode, flags, ctx):
        self.requests.append("open")
        return pyfuse3.FileInfo(fh=2, direct_io=True)

    async def read(self, fh, offset, size):
        with open(self.backing, "rb") as file:
            file.seek(offset)
            return file.read(size)

    async def release(self, fh):
        self.requests.append("release")


async def main(mountpoint, backing):
    server = Server(backing)
    pyfuse3.init(server, mountpoint, {"fsname=finding"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        command = [sys.executable, "-c", HOLDER, f"{mountpoint}/f", backing]
        done = await trio.to_thread.run_sync(subprocess.run, command)
        pyfuse3.terminate()
    pyfuse3.close()
    print("requests that the server saw:", *server.requests)
    sys.exit(done.returncode)


trio.run(main, sys.argv[1], sys.argv[2])
PY
if "$work/venv/bin/python" "$work/server.py" "$work/mnt" "$work/backing"; then
	echo "as found: the lease says nothing about the server's side"
else
	echo "this has changed" >&2
	exit 1
fi
