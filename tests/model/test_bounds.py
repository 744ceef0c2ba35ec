"""What no command may say is refused in an entry, too, by whomever it was written."""

import time
import tracemalloc
from typing import Any, get_args

import msgspec
import pytest

from mregfs.errors import CorruptError
from mregfs.model import changes as facts
from mregfs.model.bounds import BOUNDS, SAID
from mregfs.model.changes import (
    Change,
    Entry,
    Request,
    VersionLogged,
    decode_entry,
    encode_entry,
    entry_key,
)
from mregfs.model.commands import CommitRequest, LogVersion
from mregfs.model.forms import COMMANDS
from mregfs.model.records import Parent, VersionRecord
from mregfs.registry.read.results import VersionInfo

P = "default/default"
KEY = entry_key(7)
LOGGED = facts.VersionLogged(P, "mnist", 0, "a" * 64, "1" * 32, 1, 1, 1)
MEGA = "x" * (10 << 20)

NAMES = ["../x", "a/b", "..", ".", "", "a\0b", "a\x1b[2J", "a\nb", "é", "-x", "x ", MEGA]
ALIASES = [*NAMES, "../../x", "v7", "V7", "latest", "LATEST", "next", "a b"]
PROJECTS = ["../..", "abc", "", "/", "a/", "/b", "a/b/c", "a/..", "a/staging", "artifacts/b", MEGA]
NUMBERS = [-1, 10**17 + 1, 1 << 70, 1 << 80, -(1 << 80)]
DIGESTS = ["", "a" * 63, "A" * 64, "../" + "a" * 61, "g" * 64]


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


HOSTILE: list[tuple[str, Any]] = [
    *(("name", facts.ArtifactCreated(P, name, "model")) for name in NAMES),
    *(("name", facts.CollectionCreated(P, name, "")) for name in NAMES),
    *(("name", facts.OwnerDeleted(P, name)) for name in NAMES),
    *(("new_name", facts.CollectionRenamed(P, "c", name)) for name in NAMES),
    *(("artifact", facts.VersionDeleted(P, name, 0)) for name in NAMES),
    *(("collection", facts.Unlinked(P, name, 0)) for name in NAMES),
    *(("alias", facts.AliasSet(P, "mnist", alias, 0)) for alias in ALIASES),
    *(("alias", facts.AliasDropped(P, "mnist", alias, 0)) for alias in ALIASES),
    *(("alias", facts.AliasProtected(P, "mnist", alias, "ml")) for alias in ALIASES),
    *(("project", facts.ProjectCreated(project)) for project in PROJECTS),
    *(("source_project", facts.Linked(P, "c", 0, project, "m", 0)) for project in PROJECTS),
    *(("number", facts.AliasSet(P, "mnist", "best", number)) for number in NUMBERS),
    *(("previous", facts.AliasSet(P, "mnist", "best", 0, number)) for number in NUMBERS),
    *(("version", facts.Linked(P, "c", 0, P, "mnist", number)) for number in NUMBERS),
    *(("number", facts.Tagged(P, "mnist", number, ())) for number in NUMBERS),
    *(
        (field, msgspec.structs.replace(LOGGED, **{field: number}))
        for field in ("number", "size", "files", "entries")
        for number in [*NUMBERS, 1 << 61]
        if (field, number) != ("size", 10**17 + 1)
    ),
    *(("digest", msgspec.structs.replace(LOGGED, digest=digest)) for digest in DIGESTS),
    *(("layout", msgspec.structs.replace(LOGGED, layout=layout)) for layout in DIGESTS),
    *(
        ("parents", msgspec.structs.replace(LOGGED, parents=(parent,)))
        for parent in (Parent("..", "m", 0, "a" * 64), Parent(P, "m", -1, "a" * 64))
    ),
    ("parents", msgspec.structs.replace(LOGGED, parents=(Parent(P, "m", 0, "a" * 64),) * 2000)),
    ("run", msgspec.structs.replace(LOGGED, run=MEGA)),
    ("tags", msgspec.structs.replace(LOGGED, tags=tuple(f"t{n}" for n in range(200)))),
    ("tags", facts.Tagged(P, "mnist", 0, ("../x",))),
    ("group", facts.AliasProtected(P, "mnist", "best", "")),
    ("group", facts.AliasProtected(P, "mnist", "best", "a\x1bb")),
    ("readers", facts.AccessSet(P, "a\x1bb", None)),
    ("writers", facts.AccessSet("", None, MEGA)),
    *(("project", facts.AccessSet(project)) for project in PROJECTS if project),
    ("description", facts.Described(P, "mnist", None, "a\0b")),
    ("description", facts.Described(P, "mnist", None, MEGA)),
    ("metadata", facts.MetadataSet(P, "mnist", 0, {"": 1})),
    ("metadata", facts.MetadataSet(P, "mnist", 0, {"a": MEGA})),
    ("metadata", facts.MetadataSet(P, "mnist", 0, {"a": 1 << 70})),
    ("metadata", facts.MetadataSet(P, "mnist", 0, {str(n): n for n in range(101)})),
    ("metadata", facts.MetadataSet(P, "mnist", 0, deep(40))),
]  # fmt: skip


def entry(*requests: Request, **fields: Any) -> Entry:
    given = {"sequence": 7, "previous": "0" * 64, "transaction": "t", "at_ns": 10**18, "host": "h"}
    return Entry(**(given | fields), requests=requests)


@pytest.mark.parametrize(
    ("field", "change"), HOSTILE, ids=[f"{n}-{field}" for n, (field, _) in enumerate(HOSTILE)]
)
def test_a_fact_that_no_command_leads_to_is_refused(field: str, change: Change) -> None:
    """The error names the entry, the change and the field, in few words; time is bounded."""
    sound = facts.AliasDropped(P, "mnist", "best", 0)
    data = encode_entry(entry(Request("ann", (sound,)), Request("ann", (sound, change))))
    begun = time.monotonic()
    with pytest.raises(CorruptError) as caught:
        decode_entry(data, KEY)
    assert time.monotonic() - begun < 2
    assert KEY in str(caught.value)
    assert f"requests[1].changes[1].{field}" in str(caught.value)
    assert len(str(caught.value)) < 500


def raw(changes: bytes) -> bytes:
    return (
        b'{"sequence":7,"previous":"0","transaction":"t","at_ns":1,"host":"h","requests":'
        b'[{"author":"ann","changes":[' + changes + b"]}]}\n"
    )


@pytest.mark.parametrize("levels", [40, 3000, 100_000, 5_000_000])
@pytest.mark.parametrize(("opened", "closed"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_metadata_of_any_depth_is_refused(levels: int, opened: bytes, closed: bytes) -> None:
    """Also what is nested too deep for the decoder."""
    data = raw(
        b'{"change":"metadata-set","project":"a/b","name":"m","number":null,"metadata":{"a":'
        + opened * levels + b"1" + closed * levels + b"}}"
    )  # fmt: skip
    with pytest.raises(CorruptError, match="0007"):
        decode_entry(data, KEY)


@pytest.mark.parametrize("digits", [30, 5000, 10_000_000])
def test_a_number_of_any_length_is_refused(digits: int) -> None:
    """In no more time than it takes to read it."""
    change = b'{"change":"version-deleted","project":"a/b","artifact":"m","number":%s}'
    begun = time.monotonic()
    with pytest.raises(CorruptError, match="0007"):
        decode_entry(raw(change % (b"9" * digits)), KEY)
    metadata = (
        b'{"change":"metadata-set","project":"a/b","name":"m","number":0,"metadata":{"a":%s}}'
    )
    with pytest.raises(CorruptError, match="0007"):
        decode_entry(raw(metadata % (b'{"a":' + b"9" * digits + b"}")), KEY)
    assert time.monotonic() - begun < 5


SOUND = Request("ann", (LOGGED,))


@pytest.mark.parametrize(
    "bad",
    [
        entry(),
        entry(Request("ann", ())),
        entry(SOUND, Request("ann", ())),
        entry(SOUND, sequence=0),
        entry(SOUND, sequence=-1),
        entry(SOUND, sequence=1 << 70),
        entry(SOUND, at_ns=0),
        entry(SOUND, at_ns=-5),
        entry(SOUND, at_ns=1 << 80),
        entry(SOUND, host=MEGA),
        entry(SOUND, previous=MEGA),
        entry(SOUND, transaction=MEGA),
        entry(Request(MEGA, (LOGGED,))),
        entry(Request("ann", (LOGGED,), MEGA)),
    ],
    ids=lambda each: "",
)
def test_an_entry_that_no_program_writes_is_refused(bad: Entry) -> None:
    """Without requests, without changes, at no time that there is."""
    with pytest.raises(CorruptError, match="0007") as caught:
        decode_entry(encode_entry(bad), KEY)
    assert len(str(caught.value)) < 300


def test_an_entry_is_cut_off_when_it_lacks_its_newline() -> None:
    """However much of its padding is there."""
    data = encode_entry(entry(SOUND), grain=1 << 10)
    assert decode_entry(data, KEY)
    for bad in (data[:-1], data[:-300], data.rstrip()):
        with pytest.raises(CorruptError, match="is cut off"):
            decode_entry(bad, KEY)


@pytest.mark.slow
def test_a_large_entry_of_many_changes_takes_bounded_memory() -> None:
    """A few times its size."""
    change = facts.AliasSet(P, "mnist", "best", 0, 1)
    data = encode_entry(entry(Request("ann", (change,) * 50_000)))
    tracemalloc.start()
    try:
        decode_entry(data, KEY)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data)
    finally:
        tracemalloc.stop()


def test_every_field_of_every_fact_has_a_bound_of_its_own() -> None:
    """Whoever adds a fact says what may be in it."""
    unbounded = {
        f"{kind.__name__}.{name}"
        for kind in get_args(Change)
        for name in kind.__struct_fields__
        if name not in BOUNDS
    }
    assert set() == unbounded


@pytest.mark.parametrize(
    "kind", [LogVersion, CommitRequest, VersionLogged, VersionRecord, VersionInfo]
)
def test_what_is_said_of_a_version_is_a_field_wherever_it_passes(kind):
    """From the command to the answer: a field that is added to the table is missed nowhere."""
    assert SAID.keys() <= set(kind.__struct_fields__)


def test_what_is_said_of_a_version_can_be_said():
    assert SAID.keys() <= {option.key for option in COMMANDS["commit"].options}
