"""The C extensions, or none of them; everything else is in pyproject.toml.

With MREGFS_PURE=1 the wheel is for any host: who has it looks through mounts, and mounts for itself
without passthrough.
"""

import os

from setuptools import Extension, setup

EXTENSIONS = [
    # The passthrough interposer (mregfs/fuse/passthrough.md). Optional: without it every read takes
    # the cached path.
    Extension(
        "mregfs.fuse._passthrough",
        ["mregfs/fuse/_passthrough.c"],
        libraries=["dl"],
        optional=True,
    ),
    # System calls as another user (mregfs/host/host.md). Optional: without it a mount is for its
    # own user only.
    Extension(
        "mregfs.host._native",
        ["mregfs/host/_native.c"],
        depends=["mregfs/host/_credentials.c"],
        optional=True,
    ),
]

setup(ext_modules=[] if os.environ.get("MREGFS_PURE") == "1" else EXTENSIONS)
