"""A store with 100 000 versions in 1000 artifacts, made once and kept below `tests/bench/out/`.

The first artifact's versions are committed from real directories; the others get the same hundred
contents by the rules, a thousand commands to a log entry: so every version has a manifest and a
layout, and all that stands between this store and one that grew over years is the order of the log.

    python -m tests.bench.big_store          make it, and print where it is
"""

import shutil
import tempfile
import time
from pathlib import Path

from mregfs.api import Registry, init_store, open_store
from mregfs.model.commands import LinkVersion, LogVersion, MoveAlias, Principal
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import Location
from mregfs.model.state import State

__all__ = ["ARTIFACTS", "COLLECTIONS", "VERSIONS", "big_store"]

OUT = Path(__file__).parent / "out"
ARTIFACTS = 1000
VERSIONS = 100
"""Of each artifact."""
COLLECTIONS = 100
LINKS = 10
"""Of each collection; one of them is `production`."""
PER_ENTRY = 1000
PRINCIPAL = Principal("bench", privileged=True)


def big_store(artifacts: int = ARTIFACTS, versions: int = VERSIONS) -> Path:
    """Return the store's directory; make it if it is not there yet (about a minute)."""
    store = OUT / f"store-{artifacts}x{versions}"
    if not (store / "complete").exists():
        shutil.rmtree(store, ignore_errors=True)
        store.parent.mkdir(exist_ok=True)
        init_store(store)
        _commit_contents(store, versions)
        _log_the_rest(store, artifacts)
        (store / "complete").touch()
    return store


def _commit_contents(store: Path, versions: int) -> None:
    """Make artifact-0000: versions of a model of three files, of which one changes."""
    with tempfile.TemporaryDirectory() as name, Registry(store) as registry:
        directory = Path(name)
        (directory / "vocabulary.txt").write_text("word\n" * 2000)
        (directory / "config.json").write_text('{"hidden": 256}')
        for number in range(versions):
            (directory / "weights.bin").write_bytes(number.to_bytes(4, "big") * 5000)
            registry.commit(directory, "artifact-0000", metadata={"accuracy": number / versions})


def _log_the_rest(store: Path, artifacts: int) -> None:
    opened = open_store(store)
    try:
        with opened.index.read() as view:
            state = State(view)
            first = state.artifact(DEFAULT_PROJECT, "artifact-0000")
            assert first is not None
            contents = list(state.versions(first.inode))
        commands: list[LogVersion | LinkVersion | MoveAlias] = []

        def submit() -> None:
            opened.log.submit(commands, PRINCIPAL)
            commands.clear()

        for artifact in range(1, artifacts):
            commands.extend(
                LogVersion(
                    project=DEFAULT_PROJECT,
                    artifact=f"artifact-{artifact:04d}",
                    digest=content.digest,
                    layout=content.layout,
                    size=content.size,
                    files=content.files,
                    entries=content.entries,
                    aliases=("best",) if content.number == artifact % len(contents) else (),
                    metadata=content.metadata,
                )
                for content in contents
            )
            if len(commands) >= PER_ENTRY:
                submit()
        for collection in range(COLLECTIONS):
            for link in range(LINKS):
                source = f"artifact-{(collection * LINKS + link) % artifacts:04d}"
                commands.append(
                    LinkVersion(
                        Location(DEFAULT_PROJECT, source, number=link % len(contents)),
                        Location(
                            DEFAULT_PROJECT,
                            f"collection-{collection:03d}",
                            alias="production" if link == LINKS // 2 else None,
                        ),
                    )
                )
        submit()
        opened.log.checkpoint()
    finally:
        opened.close()


if __name__ == "__main__":
    started = time.perf_counter()
    print(big_store(), f"({time.perf_counter() - started:.1f} s)")
