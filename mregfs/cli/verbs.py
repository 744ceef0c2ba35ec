"""The table of verbs: what `mregfs --help` lists, and where each one lives.

Decided here: the names of the verbs, their order and their one-line help. Not decided here: what
they do. `main` reads the table; a verb's module is imported only when the verb is used.
"""

from typing import NamedTuple

__all__ = ["COMPLETE_VARIABLE", "SECTIONS", "VERBS", "Verb"]

COMPLETE_VARIABLE = "_MREGFS_COMPLETE"
"""By what a shell asks for verbs, options and names, instead of running a verb."""


class Verb(NamedTuple):
    """One row of the table."""

    module: str
    """Below `mregfs.cli`."""
    attribute: str
    """The click command in that module."""
    summary: str
    """One line of help; the first line of the command's docstring says the same."""


SECTIONS: dict[str, dict[str, Verb]] = {
    "Look": {
        "ls": Verb("listing", "ls", "List artifacts and collections, versions, or files."),
        "tree": Verb("listing", "tree", "Draw artifacts, collections, versions and aliases."),
        "show": Verb("details", "show", "Show everything known about a version or its owner."),
        "path": Verb("details", "path", "Print the path of a version below the mount."),
        "history": Verb("details", "history", "Show who moved what, when and why."),
        "log": Verb("details", "log", "Show the entries of the log."),
        "diff": Verb("compare", "diff", "Compare the files of two versions."),
        "du": Verb("compare", "du", "Show how much space versions take."),
        "status": Verb("store", "status", "Show the store and its mounts."),
    },
    "Change": {
        "commit": Verb("intake", "commit", "Make a draft or a directory the next version."),
        "ln": Verb("changes", "ln", "Link a version into a collection, or move an alias."),
        "rm": Verb("changes", "rm", "Drop an alias, a link, a version or an empty owner."),
        "mv": Verb("changes", "mv", "Rename a collection, or commit a draft."),
        "mkdir": Verb("changes", "mkdir", "Create an empty collection or artifact."),
        "tag": Verb("changes", "tag", "Add and remove tags."),
        "describe": Verb("changes", "describe", "Set a description."),
        "set": Verb("changes", "set_", "Set and remove keys of the metadata."),
        "rollback": Verb("changes", "rollback", "Move an alias back to where it was."),
        "protect": Verb("changes", "protect", "Let only one group move an alias."),
        "unprotect": Verb("changes", "unprotect", "Let anyone move an alias again."),
        "draft": Verb("access", "draft", "Do something with a draft."),
        "access": Verb("access", "access", "Say who may read and who may change a store."),
    },
    "Follow": {
        "watch": Verb("follow", "watch", "Print each change, or run a command on it."),
        "wait": Verb("follow", "wait", "Wait until a reference resolves to something else."),
    },
    "Carry": {
        "import": Verb("intake", "import_", "Make a file or a directory the next version."),
        "export": Verb("intake", "export", "Copy a version's files out of the store."),
    },
    "Host": {
        "init": Verb("store", "init", "Make a new store."),
        "mount": Verb("mounting", "mount", "Mount a store."),
        "umount": Verb("mounting", "umount", "Unmount a store."),
        "pin": Verb("maintenance", "pin", "Keep a version's files in one piece on this host."),
        "unpin": Verb("maintenance", "unpin", "Let go of what pin made."),
        "fsck": Verb(
            "maintenance", "fsck", "Check that everything in the store is there and sound."
        ),
        "reindex": Verb("store", "reindex", "Rebuild the index of this host from the log."),
        "demo": Verb("demo", "demo", "Show all of it in half a minute, in a throw-away store."),
        "help": Verb("help", "help_", "Show a page of the manual."),
        "completion": Verb("completion", "completion", "Print a shell's completion script."),
    },
}

VERBS: dict[str, Verb] = {name: verb for group in SECTIONS.values() for name, verb in group.items()}
