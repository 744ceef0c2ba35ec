"""The extension's map of handles: no fixed size, nothing lost, nothing left."""

import random
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from mregfs.fuse.passthrough import _native as native


def test_handles_come_and_go_in_any_order():
    choose = random.Random(17)
    before = native.figures()["handles"]
    bound = set()
    for _ in range(200_000):
        handle = choose.choice((choose.randrange(1 << 12), choose.getrandbits(63) << 1))
        if choose.random() < 0.6:
            native.bind(handle, 1, -1)
            bound.add(handle)
        else:
            if bound and choose.random() < 0.7:
                handle = bound.pop()
            native.unbind(handle)
            bound.discard(handle)
    assert before + len(bound) == native.figures()["handles"]
    for handle in bound:
        native.unbind(handle)

    assert before == native.figures()["handles"]


def test_a_handle_is_64_bits():
    with pytest.raises((OverflowError, TypeError)):
        native.unbind(-1)
    before = native.figures()["handles"]
    alike = [number << 32 | 5 for number in range(4096)]
    for handle in alike + alike:
        native.bind(handle, 1, -1)
    assert before + 4096 == native.figures()["handles"]
    for handle in alike[:2048] * 2:
        native.unbind(handle)
    assert before + 2048 == native.figures()["handles"]
    for handle in alike[2048:]:
        native.unbind(handle)
    assert before == native.figures()["handles"]


def test_without_a_session_the_kernel_holds_nothing():
    assert native.backing_open(0, False) < 0 > native.backing_open(0, True)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_extension_compiles_without_a_warning():
    room = Path(__file__).parents[3]
    source = room / "mregfs/fuse/_passthrough.c"
    include = sysconfig.get_path("include")
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-fsyntax-only", "-fPIC", f"-I{include}"]
    done = subprocess.run(["gcc", *flags, source], capture_output=True, text=True, check=False)

    assert "" == done.stderr
