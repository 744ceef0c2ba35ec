"""Whoever can write in a store's directory reaches nothing else by it, whoever then uses the store.

Each of the store's names is replaced by each of the things that could be there instead; then all
verbs are run by root and by another user. What is outside the store stays as it is, nothing of it
is shown or published, no verb hangs, each that fails says so in a line.
"""

import os
from pathlib import Path

import pytest

from tests.attack.canaries import Canaries
from tests.attack.commands import run_verb
from tests.attack.hostile_stores import (
    NAMES,
    REPLACEMENTS,
    Victims,
    copy_store,
    make_template,
    plant,
)

ALICE, BOB = 64001, 64002
TEAM = 64100

LOOKING = (
    ("status",),
    ("ls",),
    ("show", "mnist:v0"),
    ("history", "mnist"),
    ("du",),
    ("diff", "mnist:v0", "mnist:v1"),
    ("fsck", "--data"),
)
CHANGING = (
    ("ln", "mnist:v0", "mnist:best"),
    ("commit", "{source}", "mnist"),
    ("import", "{source}/config.json", "single"),
    ("export", "mnist:v1", "{target}"),
    ("rm", "--force", "mnist:v0"),
    ("reindex",),
)


@pytest.fixture(scope="module")
def template(place_for_all: Path) -> Path:
    return make_template(place_for_all)


@pytest.fixture(scope="module")
def canaries(place_for_all: Path) -> Canaries:
    return Canaries(place_for_all / "canaries", {"root": 0, "bob": BOB, "alice": ALICE})


def attack(
    template: Path,
    canaries: Canaries,
    place: Path,
    name: str,
    replacement: str,
    actor: int,
    owner: int,
    mode: int,
) -> list[str]:
    """Let alice plant one thing in a store, and an actor use it; return what went wrong."""
    who = "root" if actor == 0 else "bob"
    victims = Victims(canaries.files[f"{who} 600"], canaries.directories[f"{who} 700"])
    store = copy_store(template, place / "store", owner, TEAM, mode)
    plant(store, name, replacement, victims, ALICE, TEAM)
    home = place / "home"
    for directory in (home, home / "source", home / "out"):
        directory.mkdir()
    (home / "source/config.json").write_bytes(os.urandom(10))
    for path in [home, *home.rglob("*")]:
        os.chown(path, actor, actor)
    environment = {"HOME": str(home), "XDG_STATE_HOME": str(home / "cache")}
    wrong = []
    for words in (*LOOKING, *CHANGING):
        filled = [word.format(source=home / "source", target=home / "out/new") for word in words]
        outcome = run_verb(
            [*filled, "--store", store], uid=actor, groups=(TEAM,), environment=environment
        )
        wrong += [f"{words[0]}: {problem}" for problem in outcome.problems()]
        if canaries.secrets_in(outcome.output.encode()):
            wrong.append(f"{words[0]} showed what it may not: {outcome.output[-500:]}")
        changes = canaries.changes()
        wrong += [f"{words[0]}: {change}" for change in changes]
        if changes or outcome.code is None:
            canaries.before = canaries.look()
            break
    for path in (home / "out").rglob("*"):
        if path.is_file() and canaries.secrets_in(path.read_bytes()):
            wrong.append(f"exported: {path}")
    return wrong


SCENES = {
    "root, her own": (0, ALICE, 0o755),
    "bob, her own": (BOB, ALICE, 0o755),
    "root, the team's": (0, 0, 0o2775),
    "bob, the team's": (BOB, 0, 0o2775),
}
"""Who uses the store after alice was there; whose it is, and the mode of its directories."""


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_what_is_planted_in_a_store_leads_nowhere(template, canaries, tmp_path, number) -> None:
    """Each name once a day; with what, and in which scene, changes from name to name."""
    name = NAMES[number]
    replacement = list(REPLACEMENTS)[number % len(REPLACEMENTS)]
    scene = list(SCENES.values())[number % len(SCENES)]

    assert [] == attack(template, canaries, tmp_path, name, replacement, *scene)


@pytest.mark.soak
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("replacement", REPLACEMENTS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_is_planted_leads_anywhere(
    template, canaries, tmp_path, name, replacement, scene
) -> None:
    """Each name with each replacement in each scene."""
    assert [] == attack(template, canaries, tmp_path, name, replacement, *SCENES[scene])
