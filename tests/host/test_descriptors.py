"""Promises about descriptors: users never get the last ones."""

import resource
import subprocess
import sys

import pytest

from mregfs.host.descriptors import RESERVE, is_claimable, share


@pytest.fixture
def few():
    """Let this process have 100 descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        yield 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


LAST = """
import errno, os, resource
from mregfs.host.descriptors import claim
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
held = []
try:
    while True:
        held.append(claim(os.open("/", os.O_RDONLY)))
except OSError as exc:
    assert exc.errno == errno.EMFILE
own = [os.open("/", os.O_RDONLY) for _ in range(100 // 4)]
for descriptor in own + held:
    os.close(descriptor)
os.close(claim(os.open("/", os.O_RDONLY)))
"""
"""In a process of its own: this one may have descriptors with high numbers open."""


def test_a_user_is_refused_before_this_process_has_none_left():
    subprocess.run([sys.executable, "-c", LAST], check=True)


def test_of_many_descriptors_a_fixed_number_is_kept(few):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    limit = share(1)
    assert limit // 8 == share(8)
    assert is_claimable(limit - RESERVE - 1)
    assert not is_claimable(limit - RESERVE)
