"""What people write into commands: sources, targets, drafts.

Decided here: how the words of a command name things, which is the same in the control file, the
CLI and the Python API, and which command they make. Not decided here: which words a command has
(`forms`), whether it is allowed (`rules`).

Every function takes what a person wrote; `strip` turns an absolute path below the mount into one
relative to its top, and leaves all else alone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from mregfs.errors import InvalidError
from mregfs.model import paths
from mregfs.model.commands import (
    Command,
    CommitRequest,
    CreateArtifact,
    CreateCollection,
    DeleteOwner,
    DeleteVersion,
    Describe,
    DropAlias,
    GiveDraft,
    LinkVersion,
    MoveAlias,
    Protect,
    RenameCollection,
    Rollback,
    SetAccess,
    SetMetadata,
    Tag,
    Unlink,
    Unprotect,
)
from mregfs.model.metadata import normalise, parse_value, parse_word
from mregfs.model.names import (
    LATEST,
    NEXT,
    ProjectName,
    check_alias,
    check_name,
    check_tag,
    parse_number,
    parse_project,
)
from mregfs.model.reference import (
    Location,
    When,
    parse_location,
    parse_path,
    parse_reference,
    parse_when,
)
from mregfs.model.rules.access import NOBODY
from mregfs.model.rules.preconditions import alias_of_target

__all__ = [
    "Strip",
    "access_command",
    "commit_request",
    "create_command",
    "describe_command",
    "give_request",
    "link_command",
    "locate",
    "metadata_command",
    "move_command",
    "protect_command",
    "remove_command",
    "remove_owner_command",
    "rollback_command",
    "same",
    "tag_command",
    "unprotect_command",
]

Strip = Callable[[str], str]


def same(text: str) -> str:
    """Return the text: the `strip` of whoever has no mount."""
    return text


def locate(text: str, project: ProjectName, strip: Strip = same) -> Location:
    """Parse a path or a reference.

    Raises:
        InvalidError: it is neither, or a path outside the mount.
    """
    return parse_location(_inside(text, strip), project)


def _inside(text: str, strip: Strip) -> str:
    path = strip(text)
    if path.startswith("/") or not path:
        raise InvalidError(
            f"{text!r} is not in this mount",
            "write a path below the mount, or a reference such as NAME:ALIAS",
        )
    return path


def link_command(
    source: str,
    target: str,
    project: ProjectName,
    *,
    expect: str | None = None,
    strip: Strip = same,
) -> LinkVersion:
    """`ln SOURCE TARGET`: link a version into a collection and move an alias there to it.

    The target is an alias, or a collection alone. The source may be what a symlink at the target's
    place would hold: `v1`, `../../artifacts/mnist/v3`.

    Raises:
        InvalidError: one of them names nothing that could be linked.
    """
    place = _link_target(target, project, strip)
    return LinkVersion(_source(source, place, project, strip), place, expect)


def _link_target(text: str, project: ProjectName, strip: Strip) -> Location:
    place = locate(text, project, strip)
    if place.alias == NEXT and place.kind == "collection":
        return Location(place.project, place.name, place.kind)
    return place


def _source(text: str, place: Location, project: ProjectName, strip: Strip) -> Location:
    """Parse a source: relative to the alias `place`, from the top of the mount, or a reference."""
    path = _inside(text, strip)
    plain = path.removeprefix("./")
    if paths.is_path(plain):
        return parse_path(plain, project)
    if plain.partition("/")[0] == ".." or path != plain:
        return _beside(plain, place, project)
    if place.alias is not None and not set(plain) & set("/:@"):
        number = parse_number(plain)
        if number is not None:
            return Location(place.project, place.name, place.kind, number=number)
        # In a directory, a word is a neighbour, as for a symlink; beside a reference it is a name.
        if place.kind is not None:
            alias = LATEST if plain == LATEST else check_alias(plain)
            return Location(place.project, place.name, place.kind, alias=alias)
    return parse_reference(plain, project)


def _beside(path: str, place: Location, project: ProjectName) -> Location:
    home = paths.directory_of(place.kind or "collection")
    parts = paths.join(home, place.name, project=place.project, own=project).split("/")
    for part in path.split("/"):
        if part == "..":
            if not parts:
                raise InvalidError(f"{path!r} leads out of the mount", "use fewer '..'")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    found = parse_path("/".join(parts), project)
    # A reference does not say in which directory it stands: `../x/v1` is a neighbour of either.
    guessed = place.kind is None and found.kind == "collection" and home not in path.split("/")
    return msgspec.structs.replace(found, kind=None) if guessed else found


def remove_command(
    target: str,
    project: ProjectName,
    *,
    force: bool = False,
    expect: str | None = None,
    strip: Strip = same,
) -> Command:
    """`rm TARGET`: drop an alias, unlink, delete a version, or a whole artifact or collection.

    Raises:
        InvalidError: the target is nothing that can be removed.
    """
    place = locate(target, project, strip)
    if place.alias is not None:
        return DropAlias(place, expect)
    if expect is not None:
        raise InvalidError(f"{target!r} is not an alias", "leave out --expect: it never moves")
    if place.is_owner:
        return DeleteOwner(place, force)
    if place.kind == "collection":
        return Unlink(place, force)
    return DeleteVersion(place, force)


def remove_owner_command(target: str, project: ProjectName, *, strip: Strip = same) -> DeleteOwner:
    """`rmdir TARGET`: delete an artifact or collection that is empty.

    Raises:
        InvalidError: the target is no artifact or collection.
    """
    return DeleteOwner(locate(target, project, strip))


def create_command(
    target: str,
    project: ProjectName,
    *,
    type: str | None = None,  # noqa: A002 - it is what the noun is called
    description: str = "",
    strip: Strip = same,
) -> CreateArtifact | CreateCollection:
    """`mkdir TARGET`: create an artifact or a collection.

    Raises:
        InvalidError: the target is not `artifacts/NAME` or `collections/NAME`.
    """
    place = locate(target, project, strip)
    if not place.is_owner or place.kind is None:
        raise InvalidError(
            f"{target!r} does not say what to create", "write artifacts/NAME or collections/NAME"
        )
    if place.kind == "artifact":
        return CreateArtifact(place.project, place.name, type or "model", description)
    return CreateCollection(place.project, place.name, type, description)


def move_command(
    source: str, target: str, project: ProjectName, *, strip: Strip = same
) -> RenameCollection | CommitRequest:
    """`mv SOURCE TARGET`: rename a collection, or commit a draft (`artifacts/NAME/next`).

    Raises:
        InvalidError: these two cannot be moved so.
    """
    if _draft_of(_inside(source, strip), project):
        place = locate(target, project, strip)
        if place.alias != NEXT:
            raise InvalidError(
                f"a draft cannot become {target!r}",
                f"move it to artifacts/NAME/{NEXT}: the registry gives it the next number",
            )
        return commit_request(source, target, project, strip=strip)
    old = locate(source, project, strip)
    new = locate(target, old.project, strip)
    if not old.is_owner or not new.is_owner:
        raise InvalidError(
            f"{source!r} cannot become {target!r}",
            "only collections and drafts are moved; move an alias with: ln SOURCE TARGET",
        )
    if (new.project, new.kind or "collection") != (old.project, old.kind or "collection"):
        raise InvalidError(
            f"{source!r} cannot be moved to {target!r}", "a collection stays in its project"
        )
    return RenameCollection(old, new.name)


def commit_request(
    draft: str,
    artifact: str,
    project: ProjectName,
    *,
    aliases: Iterable[str] = (),
    type: str | None = None,  # noqa: A002 - as above
    metadata: Mapping[str, Any] | None = None,
    description: str = "",
    tags: Iterable[str] = (),
    run: str = "",
    parents: Iterable[str] = (),
    link: str | None = None,
    strip: Strip = same,
) -> CommitRequest:
    """`commit DRAFT ARTIFACT`: what is wrong as written is found before any content is read.

    Raises:
        InvalidError: a name, an alias, a tag or the metadata is bad.
    """
    drafts_project, name = _draft_of(_inside(draft, strip), project) or (project, draft)
    if "/" in name or name in ("", ".", ".."):
        raise InvalidError(f"{draft!r} is not a draft", "name a directory of staging/")
    place = locate(artifact, project, strip)
    if place.kind == "collection" or not (place.is_owner or place.alias == NEXT):
        raise InvalidError(
            f"a draft cannot become {artifact!r}",
            "name the artifact alone; give aliases with --alias",
        )
    into = None if link is None else _link_target(link, project, strip)
    if into is not None and not into.is_owner:
        alias_of_target(into)
    return CommitRequest(
        project=drafts_project,
        draft=name,
        artifact=Location(place.project, place.name, "artifact"),
        aliases=tuple(check_alias(alias) for alias in aliases),
        type=None if type is None else check_name(type, "type"),
        metadata=normalise(metadata or {}),
        description=description,
        tags=tuple(check_tag(tag) for tag in tags),
        run=run,
        parents=tuple(locate(parent, project, strip) for parent in parents),
        link=into,
    )


def give_request(draft: str, user: str, project: ProjectName, *, strip: Strip = same) -> GiveDraft:
    """Return the request to hand a draft over.

    Raises:
        InvalidError: it is no draft.
    """
    of, name = _draft_of(_inside(draft, strip), project) or (project, draft)
    if "/" in name or not name:
        raise InvalidError(f"{draft!r} is not a draft", "name a directory of staging/")
    return GiveDraft(of, name, user)


def _draft_of(path: str, project: ProjectName) -> tuple[ProjectName, str] | None:
    """Return project and name of the draft at a path from the top of the mount; None if none."""
    found = paths.split(path)
    if not found.is_draft or not found.names:
        return None
    return parse_project(found.project) if found.project else project, "/".join(found.names)


def rollback_command(
    target: str,
    project: ProjectName,
    *,
    to: str | None = None,
    expect: str | None = None,
    strip: Strip = same,
) -> Rollback | MoveAlias:
    """`rollback TARGET`: move an alias back, one move or to where `to` says.

    `to` is a number of moves, a date or time, or a version.

    Raises:
        InvalidError: the target is no alias, or `to` says nothing, or both name a past.
    """
    place = locate(target, project, strip)
    if place.alias is None:
        raise InvalidError(f"{target!r} is not an alias", "write NAME:ALIAS")
    if to is None:
        return Rollback(place, expect)
    if place.when is not None:
        raise InvalidError(f"both {target!r} and --to name a past", "leave out one of them")
    when = _past(to)
    if when is not None:
        return Rollback(msgspec.structs.replace(place, when=when), expect)
    return MoveAlias(place, _source(to, place, project, strip), expect)


def _past(text: str) -> When | None:
    if text.startswith("@{") and text.endswith("}"):
        return parse_when(text[2:-1])
    if not text[:1].isdigit():
        return None
    try:
        return parse_when(text)
    except InvalidError:
        return None


def tag_command(
    target: str, tags: Iterable[str], project: ProjectName, *, strip: Strip = same
) -> Tag:
    """`tag TARGET [+]TAG|-TAG...`: add and remove tags."""
    words = list(tags)
    return Tag(
        locate(target, project, strip),
        add=tuple(tag.removeprefix("+") for tag in words if not tag.startswith("-")),
        remove=tuple(tag[1:] for tag in words if tag.startswith("-")),
    )


def describe_command(
    target: str, text: str, project: ProjectName, *, strip: Strip = same
) -> Describe:
    """`describe TARGET TEXT`: set a description."""
    return Describe(locate(target, project, strip), text)


def metadata_command(
    target: str, values: Iterable[str], project: ProjectName, *, strip: Strip = same
) -> SetMetadata:
    """`set TARGET KEY=VALUE|KEY:=JSON|KEY-...`: set and remove keys of the metadata.

    Raises:
        InvalidError: a word does none of it, a value is empty, or what follows `:=` is no JSON.
    """
    found = {}
    remove = []
    for word in values:
        key, equals, text = word.partition("=")
        if equals and not text:
            raise InvalidError(
                f"{word!r} has an empty value (is a variable not set?)",
                f"remove the key with {key.removesuffix(':')}-, or write an empty text as "
                f"""{key.removesuffix(":")}:='""'""",
            )
        if equals and key.endswith(":"):
            found[key[:-1]] = parse_value(text)
        elif equals:
            found[key] = parse_word(text)
        elif word.endswith("-"):
            remove.append(word[:-1])
        else:
            raise InvalidError(
                f"{word!r} sets nothing", "write KEY=VALUE or KEY:=JSON, or KEY- to remove it"
            )
    return SetMetadata(locate(target, project, strip), found, tuple(remove))


def protect_command(
    target: str, project: ProjectName, *, group: str, strip: Strip = same
) -> Protect:
    """`protect TARGET --group G`: let only members of a group move or drop an alias."""
    return Protect(locate(target, project, strip), group)


def unprotect_command(target: str, project: ProjectName, *, strip: Strip = same) -> Unprotect:
    """`unprotect TARGET`: let anyone move or drop an alias again."""
    return Unprotect(locate(target, project, strip))


def access_command(
    of: str | None,
    project: ProjectName,
    *,
    readers: str | None = None,
    writers: str | None = None,
    drafts: str | None = None,
    inherit: bool = False,
    strip: Strip = same,  # a project is no path
) -> SetAccess:
    """`access [PROJECT]`: say who may read and who may change the store, or a project.

    Raises:
        InvalidError: it is no project, or no group is named.
    """
    return SetAccess(
        None if of is None else parse_project(of, project),
        readers=_who(readers),
        writers=_who(writers),
        private_drafts=None if drafts is None else drafts == "private",
        inherit=inherit,
    )


def _who(text: str | None) -> str | None:
    """Return readers or writers as the log has them."""
    if not text and text is not None:
        raise InvalidError("no group is named", "write a group, * for everybody, - for nobody")
    return NOBODY if text == "-" else text
