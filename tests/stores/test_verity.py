"""fs-verity: asked as linux/fsverity.h says; where it is not offered, nothing happens."""

import fcntl
import os
import shutil
import subprocess
import tempfile

import pytest

from mregfs.host.beneath import Beneath
from mregfs.stores import verity
from mregfs.stores.packs_dir import PacksDirectory
from mregfs.stores.verity import FsVerity, enable_argument

PACK = "ab" * 16

PROGRAM = """
#include <linux/fsverity.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    struct fsverity_enable_arg arg;
    memset(&arg, 0, sizeof arg);
    arg.version = 1;
    arg.hash_algorithm = FS_VERITY_HASH_ALG_SHA256;
    arg.block_size = 4096;
    printf("%lu %lu ", (unsigned long)FS_IOC_ENABLE_VERITY, (unsigned long)FS_IOC_MEASURE_VERITY);
    for (size_t i = 0; i < sizeof arg; i++) printf("%02x", ((unsigned char *)&arg)[i]);
    return 0;
}
"""


def test_the_request_is_what_the_kernel_headers_say(tmp_path):
    header = "/usr/include/linux/fsverity.h"
    if shutil.which("gcc") is None or not os.path.exists(header):
        pytest.skip("needs gcc and the kernel's headers")
    (tmp_path / "ask.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-o", tmp_path / "ask", tmp_path / "ask.c"], check=True)
    said = subprocess.run([tmp_path / "ask"], capture_output=True, text=True, check=True).stdout

    assert f"{verity.ENABLE} {verity.MEASURE} {enable_argument().hex()}" == said


def test_the_request_has_the_size_that_its_number_says():
    assert 128 == len(enable_argument()) == verity.ENABLE >> 16 & 0x3FFF
    assert b"\x01\0\0\0\x01\0\0\0\0\x10\0\0" == enable_argument()[:12]
    assert bytes(116) == enable_argument()[12:]


def test_where_it_is_not_offered_nothing_happens_and_the_reason_is_known():
    """tmpfs has none, whatever the kernel."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path, Beneath.at(path) as top:
        guard, packs = FsVerity(top), PacksDirectory(top)
        packs.create(PACK, [bytes(10_000)])

        assert "this file system has no fs-verity" == guard.why_not
        with packs.open(PACK) as pack:
            assert not guard.enable(pack)
            assert not guard.is_enabled(pack)


def test_a_file_system_that_offers_it_protects_or_says_why_not(tmp_path):
    """Where the kernel has it this protects a pack; elsewhere the ioctl must agree with us."""
    top = Beneath.at(tmp_path)
    guard, packs = FsVerity(top), PacksDirectory(top)
    packs.create(PACK, [bytes(10_000)])

    with packs.open(PACK) as pack:
        protected = guard.enable(pack)

        assert (not guard.why_not) is protected
        assert guard.is_enabled(pack) is protected
        if guard.why_not:
            with pytest.raises(OSError):
                fcntl.ioctl(pack.backing(), verity.ENABLE, enable_argument())
