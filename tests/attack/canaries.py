"""Things outside the store that an attack aims at: whoever touches one is caught.

Decided here: what there is, and what of it is compared. Not decided here: by what means it is
attacked.
"""

import os
import stat
from pathlib import Path

__all__ = ["Canaries", "Record", "look_at"]

Record = tuple[object, ...]

SECRET = b"nobody but its owner has read this: "


class Canaries:
    """A file of each mode and a directory of each owner, below a directory.

    Args:
        place: where; it is made.
        owners: name of the owner, and uid.
    """

    def __init__(self, place: Path, owners: dict[str, int]) -> None:
        self.place = place
        self.files: dict[str, Path] = {}
        self.directories: dict[str, Path] = {}
        place.mkdir(mode=0o755)
        place.chmod(0o755)
        for name, uid in owners.items():
            home = place / name
            home.mkdir(mode=0o755)
            for mode in (0o600, 0o644):
                path = home / f"file-{mode:o}"
                path.write_bytes(SECRET + f"{name} {mode:o}\n".encode())
                path.chmod(mode)
                self.files[f"{name} {mode:o}"] = path
            for mode in (0o700, 0o755):
                path = home / f"directory-{mode:o}"
                (path / "below").mkdir(parents=True)
                # Names that the store's own directories have: what is cleaned up there.
                for inner in ("lock", "intent.json", "store.json", "old.tmp", "below/key.txt"):
                    (path / inner).write_bytes(SECRET + f"{name} {inner}\n".encode())
                    (path / inner).chmod(0o600)
                    os.utime(path / inner, (1_000_000_000, 1_000_000_000))
                path.chmod(mode)
                self.directories[f"{name} {mode:o}"] = path
            for path in [home, *home.rglob("*")]:
                os.chown(path, uid, uid)
        self.before = self.look()

    def look(self) -> dict[str, Record]:
        """Return what all of them are like now."""
        return look_at(self.place)

    def changes(self) -> list[str]:
        """Return what changed since they were made, a line each."""
        now = self.look()
        if now == self.before:
            return []
        return [
            f"{name}: {self.before.get(name)} became {now.get(name)}"
            for name in sorted({*now, *self.before})
            if now.get(name) != self.before.get(name)
        ]

    def secrets_in(self, data: bytes) -> bool:
        """Tell whether data was taken from one of them."""
        return SECRET in data


def look_at(place: Path) -> dict[str, Record]:
    """Return type, mode, owner, times, size and links of all that is below a directory.

    The change time tells of every other change, of content and of attributes.
    """
    found: dict[str, Record] = {}
    pending = [str(place)]
    while pending:
        path = pending.pop()
        seen = os.lstat(path)
        found[os.path.relpath(path, place)] = (
            oct(seen.st_mode),
            seen.st_uid,
            seen.st_gid,
            seen.st_ino,
            seen.st_nlink,
            seen.st_size,
            seen.st_mtime_ns,
            seen.st_ctime_ns,
        )
        if stat.S_ISDIR(seen.st_mode):
            pending += [f"{path}/{name}" for name in os.listdir(path)]
    return found
