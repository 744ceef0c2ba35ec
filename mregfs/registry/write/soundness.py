"""Whether stored bytes are those that a commit would give its own up for.

Decided here: that all of them are read and verified. Not decided here: what is compared with what
(`dedup`, `commit`).
"""

from collections.abc import Mapping
from concurrent.futures import Executor, wait

from mregfs.errors import CorruptError, MregfsError
from mregfs.model.digest import BLOCK, block_digests
from mregfs.model.layout import FileLayout, Layout
from mregfs.model.manifest import Manifest
from mregfs.model.plan import Hashed
from mregfs.ports.packs import PackStore
from mregfs.registry.read.blocks import Blocks
from mregfs.registry.read.open_content import OpenContent

__all__ = ["is_sound", "require_sound"]

_SPAN = 16 * BLOCK  # bytes that one thread verifies at a time


def require_sound(
    number: int,
    layout: Layout,
    manifest: Manifest,
    hashed: Mapping[str, Hashed],
    packs: PackStore,
    threads: Executor,
) -> None:
    """Verify a version that stands for a draft with the same content, which then goes.

    Raises:
        CorruptError: it is damaged.
    """
    for position, entry in enumerate(manifest.entries, 1):
        if entry.kind != "file":
            continue
        known = hashed[entry.path]
        if not is_sound(layout.files[position], known.blocks or known.digest, packs, threads):
            raise CorruptError(
                f"v{number} has this content already, but {entry.path!r} is damaged there",
                f"delete the version and commit again: mregfs rm --force NAME:v{number}",
            )


def is_sound(layout: FileLayout, digests: bytes, packs: PackStore, threads: Executor) -> bool:
    """Tell whether the stored bytes of a file have these digests (of its blocks, joined)."""
    if layout.inline is not None:
        return block_digests(layout.inline) == digests
    name = f"a file of {layout.size} bytes in pack {layout.extents[0].pack}"
    with OpenContent(name, layout, packs, Blocks(name, digests)) as content:

        def verify(start: int) -> None:
            for offset in range(start, min(start + _SPAN, layout.size), BLOCK):
                content.read(offset, BLOCK)

        verifying = [threads.submit(verify, start) for start in range(0, layout.size, _SPAN)]
        try:
            for future in verifying:
                future.result()
        except MregfsError:
            return False
        finally:
            for future in verifying:
                future.cancel()
            wait(verifying)
    return True
