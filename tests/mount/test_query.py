"""Looking through the mount alone: `.mregfs/query`, with the tools that everybody has."""

import errno
import json
import os

import pytest


def test_a_question_is_read_with_cat(registry_mount, model_files) -> None:
    registry_mount.commit("mnist", model_files)

    found = registry_mount.sh("cat '.mregfs/query/show mnist:latest'")
    escaped = registry_mount.sh("cat .mregfs/query/show%20mnist%3Alatest")

    assert "v0" == json.loads(found.stdout)["result"]["version"]
    assert found.stdout == escaped.stdout


def test_long_questions_go_through_several_names(registry_mount) -> None:
    from mregfs.model.queries import query_text, spell

    deep = "/".join(["long 'name' ü" * 10] * 12)
    registry_mount.commit("mnist", {f"{deep}/f": b"x"})
    path = (
        registry_mount.path
        / ".mregfs/query"
        / "/".join(spell(query_text("ls", ["mnist:v0", deep])))
    )

    assert len(os.fspath(path)) > 1500
    assert [f"{deep}/f"] == [each["path"] for each in json.loads(path.read_text())["result"]]
    assert 0 == path.stat().st_size
    assert [] == os.listdir(registry_mount.path / ".mregfs/query")


def test_nothing_else_is_there(registry_mount) -> None:
    with pytest.raises(FileNotFoundError):
        (registry_mount.path / ".mregfs/query/.git").stat()
    with pytest.raises(OSError) as caught:
        (registry_mount.path / ".mregfs/query/ls").write_text("x")
    assert errno.EPERM == caught.value.errno or errno.EACCES == caught.value.errno
