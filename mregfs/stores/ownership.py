"""The modes of what a store is made of.

Decided here: that everybody may read what may be reached. Not decided here: who reaches it,
which the mode of the store's own directory says.
"""

__all__ = ["DIRECTORY", "READ_ONLY"]

READ_ONLY = 0o444
"""The mode of what never changes; who may reach it is for the directories above to say."""


DIRECTORY = 0o755
"""The mode of the directories of a store; who may reach them is for the store's own to say."""
