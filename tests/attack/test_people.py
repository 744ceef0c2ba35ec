"""Ordinary users have all that they need in their processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests
from tests.mount.conftest import reachable_directory

LIFE = """
import os, sys
from tests.attack.people import Person

def live(place):
    before = set(sys.modules)
    import mregfs.api
    os.chdir(place)
    os.mkdir("out")
    with open("out/large", "wb") as file:
        file.write(os.urandom(2 << 20))
    mregfs.api.init_store("store")
    with mregfs.Registry("store") as registry:
        made = registry.commit("out", "mnist")["version"]
        registry.fsck(data=True)
    return made, sorted(set(sys.modules) - before)

person = Person("alice", 64201)
print(person.do(live, sys.argv[1]))
person.end()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_person_imports_nothing_that_only_another_can_read() -> None:
    """All of it is there before he becomes himself, also when nothing else was imported yet."""
    with reachable_directory() as place:
        place.chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", LIFE, place],
            cwd=Path(tests.__file__).parents[1],
            capture_output=True,
            text=True,
            check=False,
        )

    assert ("('v0', [])\n", "") == (done.stdout, done.stderr)
