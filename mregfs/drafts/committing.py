"""Drafts on their way to become versions, as the staging area sees it.

Decided here: what a draft that is being committed is to this mount, and which files keep one from
being committed. Not decided here: how a commit takes a draft (`../intake_dir`), when it does.

While a draft is frozen the commit may have given its directory another name, and have made every
directory in it its own. So it is reached by the descriptor that was opened before; its name leads
to it all the same; directories look as they did. Changes below it are refused before the host is
asked; what the host refuses there is refused as busy.
"""

import errno
import os
import stat
from collections.abc import Mapping

from mregfs.drafts.requests import Requests
from mregfs.errors import ConflictError, NotFoundError

__all__ = ["Committing"]


class Committing(Requests):
    """The requests of a commit."""

    def freeze(self, project: str, draft: str) -> str:
        """Stop every change below the draft, and return its path on the host."""
        origin, name = self._origin(project), os.fsencode(draft)
        with self._locked("freeze", None, name) as table:
            try:
                root = table.admit_root(origin)
                known = root.children.get(name)
                if known in table.frozen:
                    raise ConflictError(
                        f"draft {draft!r} is being committed already", "wait for that commit to end"
                    )
                descriptor = table.descriptor(root)
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                raise _no_draft(project, draft) from None
            if not stat.S_ISDIR(found.st_mode):
                raise _no_draft(project, draft)
            node = table.admit(root, name, found)
            writing = {
                os.fsdecode(b"/".join(way[1:]))
                for opened in self._handles.values()
                if opened.writable
                for top, way in table.ways(opened.node)
                if top is root and way[0] == name
            }
            if writing:
                raise ConflictError(
                    f"draft {draft!r} has files open for writing: {', '.join(sorted(writing))}",
                    "close them, then commit again",
                )
            table.freeze(node, project, draft)
            return os.path.join(self._staging.path, project, draft)

    def thaw(self, project: str, draft: str) -> None:
        """Allow changes again; a draft that is not frozen is left alone."""
        with self._locked("thaw", None, os.fsencode(draft)) as table:
            for node in [node for node, of in table.frozen.items() if of == (project, draft)]:
                table.thaw(node)

    def consumed(self, project: str, draft: str) -> None:
        """The draft has become a version and its directory is gone: forget its nodes.

        What the kernel still knows answers ESTALE; what is open for reading stays readable.
        """
        with self._locked("forget", None, os.fsencode(draft)) as table:
            for node in [node for node, of in table.frozen.items() if of == (project, draft)]:
                del table.frozen[node]
                table.bury(node)

    def drafts(self, project: str) -> Mapping[str, int]:
        """Return the drafts of a project with the number of their files now open for writing."""
        origin = self._origin(project)
        with self._locked("list the drafts of", None, os.fsencode(project)) as table:
            try:
                names = self._staging.drafts(origin)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EIO):
                    return {}  # none were made yet, or the store was removed
                raise
            counts = dict.fromkeys(sorted(map(os.fsdecode, names)), 0)
            for node in {opened.node for opened in self._handles.values() if opened.writable}:
                ways = table.ways(node)
                for draft in {os.fsdecode(way[0]) for top, way in ways if top.origin == origin}:
                    if draft in counts:
                        counts[draft] += 1
            return counts


def _no_draft(project: str, draft: str) -> NotFoundError:
    return NotFoundError(f"project {project!r} has no draft {draft!r}", "make it with mkdir")
