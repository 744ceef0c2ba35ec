"""Addresses of stores: what is one, which spellings are the same, what is refused today."""

from collections.abc import Callable
from pathlib import Path

import pytest

import mregfs
from mregfs.api import init_store, open_store
from mregfs.errors import InvalidError, MregfsError, UnsupportedError
from mregfs.wiring.address import StoreAddress


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/a//b/", "s3://bucket/a/b"),
        ("gs://bucket/a/b.c_d-e=f+g", "gs://bucket/a/b.c_d-e=f+g"),
        ("az://container/models", "az://container/models"),
        ("/srv/models/", "/srv/models"),
        ("/srv/a/../models", "/srv/models"),
    ],
)
def test_an_address_has_one_spelling(written: str, meant: str) -> None:
    found = StoreAddress.parse(written)

    assert meant == str(found)
    assert found == StoreAddress.parse(str(found))
    assert meant.startswith("/") == found.is_directory


@pytest.mark.parametrize(
    "written",
    [
        *("s3://", "s3:///a", "s3://bucket/..", "s3://bucket/a/./b", "s3://.bucket", "s3:// "),
        *("s3://key:secret@bucket/a", "s3://bucket?a=b", "s3://bucket/a#b", "s3://bucket/a\nb"),
    ],
)
def test_a_url_that_names_no_place_is_refused(written: str) -> None:
    """Neither are credentials part of one: it is shown to everybody in the table of mounts."""
    with pytest.raises(InvalidError, match="://BUCKET/PREFIX"):
        StoreAddress.parse(written)


@pytest.mark.parametrize("written", ["http://host/a", "file:///srv/models", "ssh://host/a"])
def test_a_url_of_another_kind_is_refused(written: str) -> None:
    with pytest.raises(UnsupportedError, match="name a directory"):
        StoreAddress.parse(written)


@pytest.mark.parametrize("use", [init_store, open_store, mregfs.Registry])
@pytest.mark.parametrize("address", ["s3://bucket/a", "gs://bucket", "az://container/a"])
def test_a_store_in_a_bucket_is_not_opened_yet(
    use: Callable[[str], object], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsupportedError, match="not supported by this version"):
        use(address)
    assert [] == list(tmp_path.iterdir())


def test_the_digest_tells_places_apart_and_not_spellings(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    address = StoreAddress.parse(tmp_path / "store")

    assert address.digest == StoreAddress.parse(tmp_path / "link").digest
    assert address.digest != StoreAddress.parse(tmp_path / "copy").digest
    assert StoreAddress.parse("s3://a/b/").digest == StoreAddress.parse("s3://a/b").digest
    assert StoreAddress.parse("s3://a/b").digest != StoreAddress.parse("gs://a/b").digest


def test_a_link_that_is_moved_leads_to_another_store(tmp_path: Path) -> None:
    """As of blue and green: what is at its end counts, not the name."""
    for name in ("blue", "green"):
        (tmp_path / name).mkdir()
    (tmp_path / "now").symlink_to("blue")
    before = StoreAddress.parse(tmp_path / "now").digest
    (tmp_path / "now").unlink()
    (tmp_path / "now").symlink_to("green")

    assert before != StoreAddress.parse(tmp_path / "now").digest


def test_a_refusal_is_one_line() -> None:
    with pytest.raises(MregfsError) as caught:
        StoreAddress.parse("s3://bucket/a\nb")
    assert 1 == len(str(caught.value).splitlines())
