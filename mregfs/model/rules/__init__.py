"""All policy of the registry: `decide` makes facts of commands, `apply_entry` makes state of facts.

    preconditions.py     what several rules ask first; Decision
    decide.py            which rule answers which command
    access.py            who may read and who may change what
    decide_versions.py   log, delete, unlink
    decide_links.py      link, collections
    decide_aliases.py    move, drop, roll back, protect
    decide_owners.py     delete and rename; tags, descriptions, metadata
    apply.py             what each fact does
    writable_state.py    keys, inode numbers, `latest`, history
    overlay.py           a view with changes on top

The rules in words are in `rules.md`.
"""

from mregfs.model.rules.apply import apply_changes, apply_entry
from mregfs.model.rules.decide import decide
from mregfs.model.rules.overlay import Overlay
from mregfs.model.rules.preconditions import Decision
from mregfs.model.rules.writable_state import Stamp

__all__ = ["Decision", "Overlay", "Stamp", "apply_changes", "apply_entry", "decide"]
