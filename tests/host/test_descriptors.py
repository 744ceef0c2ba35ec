"""Promises about descriptors: users never get the last ones."""

import errno
import os
import resource

import pytest

from mregfs.host.descriptors import RESERVE, claim, is_claimable, share


@pytest.fixture
def few():
    """Let this process have 100 descriptors; one of them after the other is taken."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        yield 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_user_is_refused_before_this_process_has_none_left(few):
    held = []
    try:
        with pytest.raises(OSError) as caught:
            while True:
                held.append(claim(os.open("/", os.O_RDONLY)))
        assert errno.EMFILE == caught.value.errno
        own = [os.open("/", os.O_RDONLY) for _ in range(few // 4)]
        for descriptor in own:
            os.close(descriptor)
    finally:
        for descriptor in held:
            os.close(descriptor)
    os.close(claim(os.open("/", os.O_RDONLY)))


def test_of_many_descriptors_a_fixed_number_is_kept(few):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    limit = share(1)
    assert limit // 8 == share(8)
    assert is_claimable(limit - RESERVE - 1)
    assert not is_claimable(limit - RESERVE)
