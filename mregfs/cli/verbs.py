"""The table of verbs: what `mregfs --help` lists, and where each one lives.

Decided here: the order of the verbs, and where each one lives. Not decided here: what they do, and
the names and the help of those that the control file or a question knows as well (`model.forms`).
A verb's module is imported only when the verb is used.
"""

from typing import NamedTuple

from mregfs.model.forms import COMMANDS, QUESTIONS

__all__ = ["COMPLETE_VARIABLE", "SECTIONS", "VERBS", "Verb"]

COMPLETE_VARIABLE = "_MREGFS_COMPLETE"
"""By what a shell asks for verbs, options and names, instead of running a verb."""


class Verb(NamedTuple):
    """One row of the table."""

    module: str
    """Below `mregfs.cli`."""
    attribute: str
    """The click command in that module; empty: its `VERBS` has it by its name."""
    summary: str
    """One line of help; the command's own help begins with it."""


def _asked(module: str, name: str) -> Verb:
    return Verb(module, name, QUESTIONS[name].summary)


_OWN_MODULES = {"access": "access", "commit": "transfer"}
_CHANGES = {
    form.name: Verb(_OWN_MODULES[form.name], form.name, form.summary)
    if form.name in _OWN_MODULES
    else Verb("change", "", form.summary)
    for form in COMMANDS.values()
    if not form.verb
}


SECTIONS: dict[str, dict[str, Verb]] = {
    "Look": {
        "ls": _asked("browse", "ls"),
        "tree": Verb("browse", "tree", "Draw artifacts, collections, versions and aliases."),
        "show": _asked("details", "show"),
        "path": _asked("details", "path"),
        "history": _asked("details", "history"),
        "log": _asked("details", "log"),
        "diff": _asked("compare", "diff"),
        "du": _asked("compare", "du"),
        "status": _asked("store", "status"),
    },
    "Change": {
        **_CHANGES,
        "run": Verb("script", "run", "Carry out the commands of a file as one transaction."),
        "draft": Verb("access", "draft", "Do something with a draft."),
    },
    "Follow": {
        "watch": Verb("follow", "watch", "Print each change, or run a command on it."),
        "wait": Verb("follow", "wait", "Wait until a reference resolves to something else."),
    },
    "Carry": {
        "import": Verb("transfer", "import_", "Make a file or a directory the next version."),
        "export": Verb("transfer", "export", "Copy a version's files out of the store."),
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
