"""What every verb works with: its place, the registry, the way changes go, `--json`.

Decided here: the options that all verbs share; that a change goes through a live mount of the store
when there is one, else to the store itself. Not decided here: what a verb asks for. Verbs get a
`Session` as their first argument by `@verb`.

Both ways take the same line of the control file's grammar, so a verb means the same either way.
"""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, wraps
from typing import IO, TYPE_CHECKING, Any

import click

from mregfs.cli.place import Mount, Place, find_place
from mregfs.cli.streams import OutputError
from mregfs.errors import ForbiddenError, HostError, InvalidError, NotFoundError
from mregfs.model import paths
from mregfs.model.forms import REASON, Form
from mregfs.model.names import parse_project

if TYPE_CHECKING:
    from mregfs.api import Registry
    from mregfs.model.names import ProjectName

__all__ = [
    "SAID_AUTHOR",
    "Session",
    "check_unicode",
    "command_line",
    "line_of",
    "not_a_writer",
    "read_text",
    "verb",
]

Options = Mapping[str, str | Sequence[str] | None]
Said = Mapping[str, Any]
"""What is said of a form: the values of its operands and options, by what code calls them."""

NAMES = frozenset({"owner", "project", "reference", "source"})
"""What is spelled anew for the control file of a mount: it may be of another project."""

_PATHS = frozenset(
    {"command", "destination", "draft", "log_file", "mount", "mountpoint", "options"}
    | {"path", "paths", "source", "store"}
)
"""Arguments of the verbs that are paths of this host, or commands that may hold some."""
_MAY_BE_EMPTY = frozenset({"options"})
"""`mount -o ''` says nothing, as it does to mount(8): a script that composes options writes it."""
_PLACES = {
    **dict.fromkeys(("a", "b", "ref", "refs", "target"), ("/", ".")),
    "metadata": ("@",),
}
"""Arguments that are paths when they begin so."""


class Session:
    """One command line: where it stands, and how it reaches the registry.

    Opens the store when first asked for it; `verb` closes it.
    """

    def __init__(
        self, store: str | None, mount: str | None, project: str | None, *, as_json: bool
    ) -> None:
        self.named_store = store
        self.named_mount = mount
        self.named_project = project
        self.as_json = as_json
        self.done = False
        """Whether what was asked is done, and only to be told."""
        self._registry: Registry | None = None
        self._writing: Registry | None = None

    @cached_property
    def place(self) -> Place:
        """Which store, mount and project are meant."""
        return find_place(
            store=self.named_store, mount=self.named_mount, project=self.named_project
        )

    @property
    def project(self) -> "ProjectName":
        """The project that names are in."""
        return self.place.project

    @property
    def registry(self) -> "Registry":
        """The registry to read: the store, or a mount where this user cannot open the store.

        Looking changes nothing of a store, and repairs nothing.
        """
        if self._registry is None:
            self._registry = self._look()
        return self._registry

    @property
    def writing(self) -> "Registry":
        """The store, opened to be changed.

        Raises:
            MregfsError: this user may not open it, or its place is not known.
        """
        if self._writing is None:
            from mregfs.api import Registry

            self._writing = Registry(self.place.own_store, str(self.place.project), author=author())
        return self._writing

    @property
    def owns_store(self) -> bool:
        """Whether the store's directory is this user's."""
        try:
            return os.stat(self.place.store).st_uid == os.geteuid()
        except OSError:
            return False

    def _look(self) -> "Registry":
        from mregfs.api import Registry

        place, project = self.place, str(self.place.project)
        mount = next((each for each in place.mounts if each.is_whole), None)
        if place.through is not None or mount is None:
            point = place.through.point if place.through else None
            store = None if place.through else place.store
            return Registry(store, project, mount=point, read_only=True)
        registry = Registry(place.store, project, mount=mount.point, read_only=True)
        if not place.store_was_named and place.is_another(mount, registry.store_id):
            # The path is right elsewhere: here, in a container say, another store stands there.
            registry.close()
            registry = Registry(None, project, mount=mount.point)
        return registry

    def locate(self, text: str, *, beside: bool = False) -> str:
        """Return a reference or tree path for what a person wrote; see `Place.locate`."""
        return self.place.locate(text, beside=beside)

    def split_path(self, text: str) -> tuple[str, str]:
        """Return the located reference or tree path of a version or owner, and what is below it.

        Only a tree path can go further down than a version: `artifacts/mnist/v3/config.json`.
        """
        located = self.place.locate(text)
        found = paths.split(located)
        if not paths.is_path(located) or found.kind is None or len(found.names) <= 2:
            return located, ""
        version = paths.join(found.directory, *found.names[:2], project=found.project)
        return version, "/".join(found.names[2:])

    def names_owner(self, located: str) -> bool:
        """Tell whether a located text names an artifact or collection, and none of its versions.

        Raises:
            InvalidError: it names neither.
        """
        from mregfs.model.reference import parse_location

        return parse_location(located, self.place.project).is_owner

    def located(self, form: Form, said: Said) -> dict[str, Any]:
        """Return what is said of a form, with each name as the grammar takes it; see `locate`."""
        found = dict(said)
        for key, takes in form.parts.items():
            value = said.get(key)
            if value is None or takes not in NAMES:
                continue
            if takes == "project":
                found[key] = str(parse_project(value, self.project))
            elif isinstance(value, str):
                found[key] = self.locate(value, beside=takes == "source")
            else:
                found[key] = [self.locate(each) for each in value]
        return found

    def change(self, form: Form, said: Said) -> dict[str, Any]:
        """Run one command, and return its result.

        Args:
            form: which command.
            said: its operands and options, by what code calls them.

        Raises:
            MregfsError: the registry said no; nothing changed.
        """
        from mregfs.cli.control import MountGoneError, transact

        located = self.located(form, said)
        mount = self.place.writable_mount()
        if mount is not None:
            try:
                result = transact(mount, line_of(form, self.for_mount(form, located, mount)))[0]
            except MountGoneError as exc:
                if isinstance(exc.__cause__, PermissionError) and not self.owns_store:
                    raise not_a_writer(mount.point) from exc
            else:
                self.done = True
                return result
        result = self.writing.run(line_of(form, located))[0]
        self.done = True
        return result

    def for_mount(self, form: Form, located: Said, mount: Mount) -> dict[str, Any]:
        """Return what is said of a form as the control file of a mount takes it."""
        found = dict(located)
        for key, takes in form.parts.items():
            value = located.get(key)
            if value is None or takes not in NAMES or takes == "project":
                continue
            if isinstance(value, str):
                found[key] = self.place.for_mount(value, mount)
            else:
                found[key] = [self.place.for_mount(each, mount) for each in value]
        return found

    def close(self) -> None:
        """Close what was opened."""
        for registry in (self._registry, self._writing):
            if registry is not None:
                registry.close()
        self._registry = self._writing = None


def not_a_writer(mountpoint: str) -> ForbiddenError:
    """Return the error for whom the control file of a mount is closed to."""
    return ForbiddenError(
        f"you may not change the registry that is mounted on {mountpoint!r}",
        "ask its owner to let a group of yours: mregfs access --writers GROUP",
    )


SAID_AUTHOR = "mregfs.author"
"""Where a command line's `--author` is, in the context's `meta`."""


def author() -> str:
    """Return whom history is to name beside this user; empty: nobody."""
    from mregfs.config import said_author

    context = click.get_current_context(silent=True)
    said = None if context is None else context.meta.get(SAID_AUTHOR)
    return said if isinstance(said, str) else said_author()


def line_of(form: Form, said: Said) -> str:
    """Return the line for the control file that says this.

    Args:
        form: which command.
        said: its operands and options, by what code calls them; None is left out.
    """
    operands: list[str] = []
    for operand in form.operands:
        value = said.get(operand.key)
        operands += [value] if isinstance(value, str) else value or []
    options = {option.name: said.get(option.key) for option in form.options if option.value}
    flags = "".join(option.letter for option in form.options if said.get(option.key) is True)
    return command_line(form.name, operands, options | {REASON.name: said.get(REASON.key)}, flags)


def command_line(
    command: str, operands: Sequence[str], options: Options | None = None, flags: str = ""
) -> str:
    """Return a line for the control file, with its author.

    Args:
        command: its name.
        operands: all of them, in order.
        options: by name, without dashes; None is left out.
        flags: letters.
    """
    words = [command]
    options = {**(options or {}), "author": author() or None}
    if flags:
        words.append(f"-{flags}")
    for option, given in options.items():
        for value in [given] if isinstance(given, str) else given or ():
            words += [f"--{option}", value]
    for word in (*words, *operands):
        check_unicode(word)
    return shlex.join([*words, "--", *operands]) + "\n"


def check_unicode(text: str) -> None:
    """Pass a text that is Unicode.

    Raises:
        InvalidError: it came from bytes that are no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidError(f"{text!r} is not UTF-8", "only paths may hold other bytes") from None


def read_text(file: IO[str], limit: int, what: str) -> str:
    """Read a file that may have no end.

    Raises:
        InvalidError: it holds more than `limit` characters.
    """
    text = file.read(limit + 1)
    if len(text) > limit:
        raise InvalidError(
            f"{what} takes more than {limit} characters", "put more into a file of the version"
        )
    return text


def _refuse_empty_options(ctx: click.Context, said: Mapping[str, object]) -> None:
    """Refuse each option of a verb, or of the group, that is empty.

    Raises:
        InvalidError: one is.
    """
    from mregfs.model.tokenizer import refuse_empty

    for name, value in (ctx.obj or {}).items():
        refuse_empty(name, value)
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if isinstance(parameter, click.Option) and name not in _MAY_BE_EMPTY:
            value = said.get(name)
            for text in value if isinstance(value, tuple) else (value,):
                refuse_empty(max(parameter.opts, key=len).lstrip("-"), text)


def _check_text(name: str, value: object) -> None:
    """Check one argument: a path may be of any bytes but none, anything else is a text."""
    if not isinstance(value, str):
        return
    if name in _PATHS:
        if not value and name not in _MAY_BE_EMPTY:
            shown = name.rstrip("s").upper()
            raise InvalidError(f"{shown} is empty", "name a path (is a variable not set?)")
        return
    if value.startswith(_PLACES.get(name, ())):
        return
    check_unicode(value)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Give a click command the options that all verbs share, and a Session as first argument."""

    @click.option("--store", metavar="STORE", help="Store to use.")
    @click.option("--mount", metavar="DIR", help="Mount to use.")
    @click.option("--project", metavar="[E/]P", help="Project that names are in.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @click.pass_context
    @wraps(function)
    def run(
        ctx: click.Context,
        /,
        *args: Any,
        store: str | None,
        mount: str | None,
        project: str | None,
        as_json: bool,
        **kwargs: Any,
    ) -> None:
        above: dict[str, str | None] = ctx.obj or {}
        own = {**kwargs, "store": store, "mount": mount, "project": project}
        _refuse_empty_options(ctx, own)
        for name, value in (*above.items(), *own.items()):
            for text in value if isinstance(value, tuple) else (value,):
                _check_text(name, text)
        session = Session(
            store or above.get("store"),
            mount or above.get("mount"),
            project or above.get("project"),
            as_json=as_json,
        )
        ctx.call_on_close(session.close)
        try:
            function(session, *args, **kwargs)
        except OutputError as exc:
            exc.done = session.done
            raise
        except (ForbiddenError, HostError, InvalidError, NotFoundError) as exc:
            from mregfs.cli.mistakes import mistake

            found = mistake(session.named_store, session.named_mount, _names(ctx, kwargs))
            raise found or exc from exc.__cause__

    return run


def _names(ctx: click.Context, said: Mapping[str, Any]) -> Iterator[str]:
    """Yield the arguments that are references."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if isinstance(parameter, click.Argument) and name not in _PATHS:
            value = said.get(name)
            yield from value if isinstance(value, tuple) else [value] if value else []
