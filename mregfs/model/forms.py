"""How each command and each question is written: its operands, its options, and its help.

Decided here: the one table of commands (`COMMANDS`) and of questions (`QUESTIONS`). The grammar of
the control file, what `cat control` shows, the verbs of the command line with their help, and the
reference page of the manual are read off it; Python's methods take the same words. Not decided
here: what a command becomes (`operands`), how words are split (`tokenizer`), the answers to
questions (`registry.read.answers`).

Nothing but `paths` is imported: the list of verbs is shown without loading what they need.
"""

from typing import NamedTuple

from mregfs.model.paths import OWNER_FORMS

__all__ = ["AUTHOR", "COMMANDS", "QUESTIONS", "REASON", "Form", "Operand", "Option"]


class Operand(NamedTuple):
    """A word that a command takes by its position."""

    name: str
    """What code calls it."""
    takes: str = "reference"
    """`reference`: a reference or a path; `source`: that, or what a symlink at the target's place
    would hold; `owner`: an artifact or collection; `draft`; `project`; `path`: within a version;
    `text`: any text."""
    shown: str = ""
    """In a usage line; empty: the name in capitals."""
    optional: bool = False
    many: bool = False
    """It takes all the words that are left, at least one."""

    @property
    def key(self) -> str:
        """What code calls it."""
        return self.name

    @property
    def metavar(self) -> str:
        """What stands for it in a usage line."""
        text = (self.shown or self.name.upper()) + ("..." if self.many else "")
        return f"[{text}]" if self.optional else text


class Option(NamedTuple):
    """A word that a command takes by its name."""

    name: str
    """`--NAME`."""
    value: str = ""
    """What stands for its value in a usage line; empty: it is a flag."""
    help: str = ""
    keyword: str = ""
    """What code calls it; empty: its name."""
    letter: str = ""
    """`-L` is the same; for an option with a value, on the command line alone."""
    takes: str = "text"
    """`text`, `reference`, `json`, `number`, or `count`: a number that is not 0."""
    many: bool = False
    """It may be given several times."""
    required: bool = False
    choices: tuple[str, ...] = ()
    """All values that it takes; empty: any."""
    ignored: bool = False
    """A flag that is taken and says nothing."""
    on_command_line: bool = True
    """Whether the verb has it; False: the control file, or the question, alone."""

    @property
    def key(self) -> str:
        """What code calls it."""
        return self.keyword or self.name

    @property
    def is_flag(self) -> bool:
        """Tell whether it takes no value."""
        return not self.value

    @property
    def usage(self) -> str:
        """How it stands in a usage line."""
        if self.is_flag:
            return f"[-{self.letter} | --{self.name}]" if self.letter else f"[--{self.name}]"
        text = f"--{self.name} {self.value}"
        return text if self.required else f"[{text}]{'...' if self.many else ''}"


class Form(NamedTuple):
    """How one command or question is written."""

    name: str
    summary: str
    """One line."""
    operands: tuple[Operand, ...] = ()
    options: tuple[Option, ...] = ()
    about: str = ""
    """Paragraphs that say more."""
    examples: tuple[str, ...] = ()
    """Lines as the control file takes them."""
    build: str = ""
    """The function of `operands` that makes the command; empty for a question."""
    method: str = ""
    """The method of `mregfs.Registry` that does the same, if one does."""
    minus_is_operand: bool = False
    """`-word` is an operand, not letters."""
    verb: str = ""
    """What the command line calls it; empty: the same."""
    is_remembered: bool = True
    """Whether history remembers it, so that it has a reason."""

    @property
    def usage(self) -> str:
        """The usage line."""
        ignored = "".join(option.letter for option in self.options if option.ignored)
        words = [
            self.name,
            f"[-{ignored}]" if ignored else "",
            *(operand.metavar for operand in self.operands),
            *(option.usage for option in self.options if not option.ignored),
            REASON.usage if self.build and self.is_remembered else "",
        ]
        return " ".join(filter(None, words))

    @property
    def parts(self) -> dict[str, str]:
        """What each operand and each option takes, by what code calls it."""
        return {each.key: each.takes for each in self.operands} | {
            each.key: each.takes for each in self.options
        }

    @property
    def values(self) -> frozenset[str]:
        """The names of the options that take a value."""
        return frozenset(option.name for option in self.options if not option.is_flag)

    @property
    def letters(self) -> dict[str, str]:
        """The names of the flags, by letter."""
        return {option.letter: option.name for option in self.options if option.is_flag}

    @property
    def least(self) -> int:
        """How many operands it has at least."""
        return sum(not operand.optional for operand in self.operands)

    @property
    def most(self) -> int | None:
        """How many operands it has at most; None: any number."""
        return None if any(each.many for each in self.operands) else len(self.operands)


REASON = Option("reason", "TEXT", "Why; history remembers it.")
AUTHOR = Option(
    "author", "NAME", "The author that history shows beside this user; else $MREGFS_AUTHOR."
)
"""What every command takes as well."""

_REF = Operand("ref")
_TARGET = Operand("target")
_OWNER_PATH = Operand("target", shown="|".join(OWNER_FORMS))
_EXPECT = Option(
    "expect", "vN|none", "Refuse unless the alias points there now (none: does not exist)."
)
_TYPE = Option("type", "TYPE", "Of a new artifact: model, if unsaid.")
_DESCRIPTION = Option("description", "TEXT", "What it is.")
_LIMIT = Option("limit", "N", "Only the N newest.", letter="n", takes="count")
_AFTER = Option("after", "X", "Where an earlier answer ended (its `more`).", on_command_line=False)

_COMMANDS = (
    Form(
        "commit",
        "Make a draft the next version of an artifact.",
        (Operand("draft", "draft"), Operand("artifact", "owner")),
        (
            Option("alias", "ALIAS", "Point it at the version.", "aliases", "a", many=True),
            _TYPE,
            Option("metadata", "JSON", "An object.", letter="m", takes="json"),
            _DESCRIPTION,
            Option("tag", "TAG", "Label the version.", "tags", many=True),
            Option("run", "RUN", "What made it: a run's name or address."),
            Option("parent", "REF", "Made from this.", "parents", takes="reference", many=True),
            Option("link", "COLLECTION[:ALIAS]", "Link it there as well.", takes="reference"),
        ),
        "A draft is a directory of staging/ in a mount, by its path or by its name alone; it "
        "becomes the version. Content that is a version already makes no new one.\n\n"
        "On the command line DRAFT may be any other directory: it is copied (or shared, where the "
        "file system can), and stays. --metadata @FILE reads a file there, and @- standard input.",
        ("commit run-17 mnist --alias best --tag shipped --link classifier:production",),
        build="commit_request",
        method="commit",
    ),
    Form(
        "ln",
        "Link a version into a collection, or move an alias.",
        (Operand("source", "source"), _TARGET),
        (
            *(
                Option(name, letter=letter, ignored=True)
                for name, letter in (
                    ("symbolic", "s"),
                    ("force", "f"),
                    ("no-dereference", "n"),
                    ("no-target-directory", "T"),
                )
            ),
            _EXPECT,
        ),
        "TARGET is an alias, or a collection alone. The letters of `ln -sfn` may be given: what "
        "they say happens anyway.",
        ("ln mnist:v3 classifier:production", "ln mnist:v3 mnist:best"),
        build="link_command",
        method="link",
    ),
    Form(
        "rm",
        "Drop an alias, a link, a version, an artifact or a collection.",
        (_TARGET,),
        (Option("force", help="With its aliases, links and versions.", letter="f"), _EXPECT),
        "What an alias or a link still names is refused, unless --force drops those too.",
        ("rm classifier:production", "rm --force mnist:v3"),
        build="remove_command",
        method="remove",
    ),
    Form(
        "mv",
        "Rename a collection, or commit a draft.",
        (Operand("source"), _TARGET),
        examples=("mv collections/old collections/new", "mv staging/run-17 artifacts/mnist/next"),
        build="move_command",
        method="move",
    ),
    Form(
        "mkdir",
        "Create an empty artifact or collection.",
        (_OWNER_PATH,),
        (_TYPE, _DESCRIPTION),
        "A collection without a type takes that of the first version linked into it.",
        ("mkdir collections/classifier --type model",),
        build="create_command",
    ),
    Form(
        "rmdir",
        "Delete an empty artifact or collection.",
        (_OWNER_PATH,),
        about="On the command line, rm does this as well.",
        examples=("rmdir collections/classifier",),
        build="remove_owner_command",
        verb="rm",
    ),
    Form(
        "tag",
        "Add and remove tags of a version, an artifact or a collection.",
        (_TARGET, Operand("tags", "text", "[+]TAG|-TAG", many=True)),
        examples=("tag mnist:v3 +shipped -draft",),
        build="tag_command",
        method="tag",
        minus_is_operand=True,
    ),
    Form(
        "describe",
        "Set the description of a version, an artifact or a collection.",
        (_TARGET, Operand("text", "text")),
        about="On the command line TEXT may be - for standard input.",
        examples=("describe mnist:v3 'trained on the night images as well'",),
        build="describe_command",
        method="describe",
        minus_is_operand=True,
    ),
    Form(
        "set",
        "Set and remove metadata of a version, an artifact or a collection.",
        (_TARGET, Operand("values", "text", "KEY=VALUE|KEY:=JSON|KEY-", many=True)),
        about="VALUE is a number if it prints back to the same text (3, 0.98), and else a text: "
        "git=831877e8, version=1.10 and good=true are texts. KEY:=JSON sets true, false, null, a "
        "list, an object, or a number that is written in another way.",
        examples=("set mnist:v3 accuracy=0.98 draft-", "set mnist:v3 good:=true"),
        build="metadata_command",
        minus_is_operand=True,
    ),
    Form(
        "rollback",
        "Move an alias back to where it was.",
        (_TARGET,),
        (Option("to", "N|TIME|VERSION", "N moves ago, a time, or a version."), _EXPECT),
        "One move back, unless --to says where.",
        (
            "rollback classifier:production --reason 'bad on night images'",
            "rollback classifier:production --to 2026-11-01",
        ),
        build="rollback_command",
        method="rollback",
    ),
    Form(
        "protect",
        "Let only members of a group move or drop an alias.",
        (_TARGET,),
        (Option("group", "G", "Who may move or drop the alias.", required=True),),
        "TARGET is an alias, which need not exist yet.",
        ("protect classifier:production --group release",),
        build="protect_command",
        method="protect",
    ),
    Form(
        "unprotect",
        "Let anyone move or drop an alias again.",
        (_TARGET,),
        examples=("unprotect classifier:production",),
        build="unprotect_command",
        method="unprotect",
    ),
    Form(
        "give",
        "Hand a draft over to another user.",
        (Operand("draft", "draft"), Operand("user", "text")),
        about="DRAFT is a directory of staging/ in a mount, by its path or by its name alone. It "
        "must be yours (or you root, or the owner of the store), with all that is in it, and not "
        "open for writing. All of it is USER's afterwards. The command is alone in its "
        "transaction, and history does not remember it.",
        examples=("give run-17 ann",),
        build="give_request",
        verb="draft give",
        is_remembered=False,
    ),
    Form(
        "access",
        "Say who may read and who may change the store, or a project.",
        (Operand("of", "project", "PROJECT", optional=True),),
        (
            Option("readers", "GROUP|*|-", "Who may look: *, everybody; -, the owner."),
            Option("writers", "GROUP|*|-", "Who may change it and make drafts."),
            Option(
                "drafts",
                "private|open",
                "Whether only its user may look into a new draft, or whom his umask lets.",
                choices=("private", "open"),
            ),
            Option("inherit", help="Of a project: as of the store, from now on.", letter="i"),
        ),
        "Without PROJECT: the whole store, where no project says otherwise. On the command line, "
        "without an option: only shows what holds. Groups are looked up on each host, by name. "
        "Only root and the owner of the store change it. Where not everybody may read all of it, "
        "the store's directory becomes its owner's alone (mode 0700), and the others use a mount.",
        ("access --readers ml --writers ml", "access team/vision --writers vision"),
        build="access_command",
    ),
)

COMMANDS: dict[str, Form] = {form.name: form for form in _COMMANDS}
"""What is written to the control file; the verbs that change something."""

_QUESTIONS = (
    Form(
        "ls",
        "List artifacts and collections, versions, or files.",
        (Operand("ref", optional=True), Operand("path", "path", optional=True)),
        (Option("all", "", "In all projects.", "everywhere", "a"), _LIMIT, _AFTER),
        "Without REF: the artifacts and collections of the project. Of one of them: its versions, "
        "newest first. Of a version: its files, at PATH and below.",
        ("ls", "ls mnist", "ls mnist:v3 config.json"),
    ),
    Form(
        "show",
        "Show everything known about a version or its owner.",
        (_REF,),
        about="A bare NAME is the artifact or collection itself; NAME:latest, its newest version.",
        examples=("show classifier:production",),
    ),
    Form(
        "path",
        "Print the path of a version below the mount.",
        (_REF,),
        about="It is the path of the version's own directory, which never changes: what a program "
        "opens there stays one version while aliases move. The mount is --mount, else "
        "$MREGFS_MOUNT, else one of the store.",
        examples=("path classifier:production",),
    ),
    Form(
        "history",
        "Show who moved what, when and why.",
        (_REF,),
        (_LIMIT, _AFTER),
        "Of NAME:ALIAS: the moves of the alias. Of NAME: everything that happened to it. Newest "
        "first.",
        ("history classifier:production",),
    ),
    Form(
        "diff",
        "Compare the files of two versions.",
        (Operand("a"), Operand("b")),
        about="Shown are files that B has and A has not (A), that only A has (D), and that differ "
        "(M), with their sizes; for safetensors files, the tensors that changed.",
        examples=("diff mnist:v2 mnist:v3",),
    ),
    Form(
        "du",
        "Show how much space versions take.",
        (Operand("ref", optional=True),),
        about="Of the whole store, an artifact or collection, or one version: logical bytes (as "
        "the files add up), unique bytes (stored for them alone), shared bytes, and what deleting "
        "would free.",
        examples=("du mnist",),
    ),
    Form(
        "log",
        "Show the entries of the log.",
        (),
        (
            Option("since", "N", "All after log entry N.", takes="number"),
            _LIMIT,
        ),
        "What changed in the whole store, by whom; oldest first. Without --since, the newest.",
    ),
    Form("projects", "List all projects.", (), (_LIMIT, _AFTER)),
    Form(
        "access",
        "Show who may read and who may change the store, or a project.",
        (Operand("of", "project", "PROJECT", optional=True),),
    ),
    Form("status", "Show the store and its mounts."),
    Form("help", "Show these questions."),
)

QUESTIONS: dict[str, Form] = {form.name: form for form in _QUESTIONS}
"""What is asked by a name below `.mregfs/query`; the verbs that look."""
