"""What file operations mean, call by call, and which errno the others get."""

import errno

import pytest

from mregfs.errors import MregfsError
from tests.vfs.rig import Rig

FILES = {"config.json": b"{}", "weights/model.bin": b"w" * 5000}


async def refused(code: int, call: object) -> MregfsError:
    with pytest.raises(MregfsError) as caught:
        await call  # type: ignore[misc]
    assert code == caught.value.errno, caught.value
    assert str(caught.value)
    return caught.value


async def two_versions(rig: Rig) -> None:
    await rig.commit("mnist", FILES)
    await rig.commit("mnist", FILES | {"config.json": b"[1]"})


async def test_a_commit_makes_a_read_only_version_with_the_files(rig: Rig) -> None:
    """What was written into the draft is what the version holds."""
    await two_versions(rig)

    assert "v1" == await rig.readlink("artifacts/mnist/latest")
    assert b"[1]" == await rig.read("artifacts/mnist/v1/config.json")
    assert b"{}" == await rig.read("artifacts/mnist/v0/config.json")
    assert b"w" * 5000 == await rig.read("artifacts/mnist/v0/weights/model.bin")
    assert [] == await rig.names("staging")
    assert ["v0", "v1", "latest"] == await rig.names("artifacts/mnist")


async def test_moving_a_draft_to_next_commits_it(rig: Rig) -> None:
    """`mkdir artifacts/new; mv staging/run artifacts/new/next` is a commit."""
    await rig.mkdir("artifacts/new")
    await rig.write("staging/run/a", b"1")
    await rig.rename("staging/run", "artifacts/new/next", 1)

    assert b"1" == await rig.read("artifacts/new/v0/a")
    await refused(errno.ENOENT, rig.walk("artifacts/new/next"))
    await refused(errno.ENOENT, rig.walk("staging/run"))


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("artifacts/mnist/v7", errno.EPERM),
        ("artifacts/mnist/v0", errno.EEXIST),
        ("artifacts/other", errno.EPERM),
        ("artifacts/mnist/v0/inside", errno.EROFS),
        ("top", errno.EPERM),
    ],
)
async def test_a_draft_can_be_moved_nowhere_else(rig: Rig, target: str, code: int) -> None:
    """A wrong target is refused, and the draft is as it was."""
    await rig.commit("mnist", FILES)
    await rig.write("staging/run/a", b"1")

    await refused(code, rig.rename("staging/run", target))

    assert b"1" == await rig.read("staging/run/a")


@pytest.mark.parametrize(
    "target",
    ["../../artifacts/mnist/v0", "/models/artifacts/mnist/v0", "../../artifacts/mnist/v0/"],
)
async def test_a_symlink_in_a_collection_links_and_names(rig: Rig, target: str) -> None:
    """`ln -s VERSION collections/C/ALIAS` links the version and makes the alias."""
    await two_versions(rig)
    await rig.mkdir("collections/classifier")
    made = await rig.symlink(target, "collections/classifier/production")

    assert made == await rig.walk("collections/classifier/production")
    assert "v0" == await rig.readlink("collections/classifier/production")
    assert "../../artifacts/mnist/v0" == await rig.readlink("collections/classifier/v0")
    assert "artifacts/mnist/v0" == await rig.resolve("collections/classifier/production")


async def test_an_alias_keeps_its_inode_while_it_moves(rig: Rig) -> None:
    """The kernel may go on using an alias's inode: its target is read at each readlink."""
    await two_versions(rig)
    await rig.symlink("v0", "artifacts/mnist/best")
    before = await rig.walk("artifacts/mnist/best")
    await rig.symlink("v1", "artifacts/mnist/.new")
    await rig.rename("artifacts/mnist/.new", "artifacts/mnist/best")
    after = await rig.walk("artifacts/mnist/best")

    assert before.inode == after.inode
    assert b"v1" == rig.fs.readlink(before.inode)


async def test_a_symlink_that_became_an_alias_is_no_other_of_its_name(rig: Rig) -> None:
    """Its number stands for that alias only: not for one that is made where it was renamed from."""
    await two_versions(rig)
    made = await rig.symlink("v0", "artifacts/mnist/.new")
    await rig.rename("artifacts/mnist/.new", "artifacts/mnist/production")
    assert b"v0" == rig.fs.readlink(made.inode)
    await rig.rename("artifacts/mnist/production", "artifacts/mnist/old")
    await rig.symlink("v1", "artifacts/mnist/production")

    for ask in (rig.fs.readlink, rig.fs.getattr):  # the kernel may have it as `old` by now
        with pytest.raises(MregfsError) as caught:
            ask(made.inode)
        assert errno.ESTALE == caught.value.errno


@pytest.mark.parametrize("temporary", [".tmp-1", "CuAb3xYz"])
async def test_a_temporary_symlink_stays_out_of_the_log(rig: Rig, temporary: str) -> None:
    """It is there for its maker, moves the alias when renamed, and goes on as that alias."""
    await two_versions(rig)
    head = rig.store.index.applied()
    made = await rig.symlink("v0", f"artifacts/mnist/{temporary}")
    assert head == rig.store.index.applied()
    assert "v0" == await rig.readlink(f"artifacts/mnist/{temporary}")
    assert temporary in await rig.names("artifacts/mnist")

    await rig.rename(f"artifacts/mnist/{temporary}", "artifacts/mnist/best")

    assert head + 1 == rig.store.index.applied()
    assert temporary not in await rig.names("artifacts/mnist")
    await rig.control("ln mnist:v1 mnist:best")
    assert b"v1" == rig.fs.readlink(made.inode)


async def test_the_number_of_a_renamed_alias_is_looked_up_again(rig: Rig) -> None:
    """The kernel asks about the entry that it moved itself: at ESTALE it goes by the name."""
    await two_versions(rig)
    before = await rig.symlink("v0", "artifacts/mnist/best")
    made = await rig.symlink("v1", "artifacts/mnist/.new")
    await rig.rename("artifacts/mnist/.new", "artifacts/mnist/best")
    await rig.rename("artifacts/mnist/best", "artifacts/mnist/champion")

    for ask in (rig.fs.readlink, rig.fs.getattr):
        for inode in (before.inode, made.inode):
            with pytest.raises(MregfsError) as caught:
                ask(inode)
            assert errno.ESTALE == caught.value.errno
    assert "v1" == await rig.readlink("artifacts/mnist/champion")


async def test_a_temporary_symlink_can_be_removed(rig: Rig) -> None:
    """An interrupted `ln -sfn` leaves nothing that cannot be cleaned up."""
    await two_versions(rig)
    await rig.symlink("v0", "artifacts/mnist/.new")
    await refused(errno.EEXIST, rig.symlink("v1", "artifacts/mnist/.new"))
    await rig.unlink("artifacts/mnist/.new")

    await refused(errno.ENOENT, rig.walk("artifacts/mnist/.new"))


async def test_names_go_by_rm_rmdir_and_mv(rig: Rig) -> None:
    """Each operation takes away exactly what it says."""
    await two_versions(rig)
    await rig.control("ln mnist:v0 classifier:production\nln mnist:v1 classifier:staging\n")
    await rig.rename("collections/classifier/staging", "collections/classifier/candidate")
    assert ["v0", "v1", "candidate", "latest", "production"] == await rig.names(
        "collections/classifier"
    )
    await refused(errno.EBUSY, rig.unlink("collections/classifier/v0"))
    await refused(errno.ENOTEMPTY, rig.rmdir("collections/classifier"))
    await rig.unlink("collections/classifier/production")
    await rig.unlink("collections/classifier/v0")
    await rig.unlink("collections/classifier/candidate")
    await rig.unlink("collections/classifier/v1")
    assert [] == await rig.names("collections/classifier")
    await rig.rename("collections/classifier", "collections/renamed")
    assert ["renamed"] == await rig.names("collections")
    await rig.rmdir("collections/renamed")

    assert [] == await rig.names("collections")


async def test_latest_and_numbers_are_the_registrys_own(rig: Rig) -> None:
    """`rm latest`, `mv best v7` and moving an alias elsewhere are EPERM: mv then copies nothing."""
    await two_versions(rig)
    await rig.control("ln mnist:v0 mnist:best\nln mnist:v0 c:production\n")
    await refused(errno.EPERM, rig.unlink("artifacts/mnist/latest"))
    await refused(errno.EPERM, rig.rename("artifacts/mnist/latest", "artifacts/mnist/newest"))
    await refused(errno.EPERM, rig.rename("artifacts/mnist/best", "artifacts/mnist/v7"))
    await refused(errno.EPERM, rig.rename("artifacts/mnist/best", "artifacts/mnist/latest"))
    await refused(errno.EPERM, rig.rename("artifacts/mnist/best", "collections/c/best"))
    await refused(errno.EPERM, rig.rename("collections/c", "artifacts/c"))


async def test_what_is_published_is_immutable(rig: Rig) -> None:
    """No operation changes a version: EROFS, each time."""
    await two_versions(rig)
    version = (await rig.walk("artifacts/mnist/v0")).inode
    file = (await rig.walk("artifacts/mnist/v0/config.json")).inode

    await refused(errno.EROFS, rig.fs.open(file, 1, rig.caller))
    await refused(errno.EROFS, rig.fs.open(file, 2, rig.caller))
    await refused(errno.EROFS, rig.fs.create(version, b"new", 0o644, 1, rig.caller))
    await refused(errno.EROFS, rig.fs.mknod(version, b"new", 0o644, 0, rig.caller))
    await refused(errno.EROFS, rig.mkdir("artifacts/mnist/v0/new"))
    await refused(errno.EROFS, rig.symlink("x", "artifacts/mnist/v0/new"))
    await refused(errno.EROFS, rig.unlink("artifacts/mnist/v0/config.json"))
    await refused(errno.EROFS, rig.rmdir("artifacts/mnist/v0/weights"))
    await refused(errno.EROFS, rig.rmdir("artifacts/mnist/v0"))
    await refused(errno.EROFS, rig.rename("artifacts/mnist/v0", "artifacts/mnist/v9"))
    await refused(errno.EROFS, rig.fs.setxattr(file, b"user.x", b"", rig.caller))
    await refused(
        errno.EXDEV, rig.fs.link(file, (await rig.walk("staging")).inode, b"l", rig.caller)
    )


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("artifacts/mnist/v5", errno.EPERM),
        ("artifacts/mnist/latest", errno.EPERM),
        ("artifacts/mnist/next", errno.EPERM),
        ("artifacts/mnist/LATEST", errno.EINVAL),
        ("artifacts/mnist/two words", errno.EINVAL),
        ("artifacts/thing", errno.EPERM),
        ("thing", errno.EPERM),
        (".mregfs/thing", errno.EPERM),
    ],
)
async def test_symlinks_that_name_nothing_are_refused(rig: Rig, path: str, code: int) -> None:
    """A symlink is an alias of an artifact or collection, or it is refused."""
    await two_versions(rig)
    before = await rig.tree()

    await refused(code, rig.symlink("v0", path))

    assert before == await rig.tree()


@pytest.mark.parametrize(
    "target", ["v9", "../nothing/v0", "/etc/passwd", "../../../../../etc", "v0/config.json", ""]
)
async def test_symlinks_to_no_version_are_refused(rig: Rig, target: str) -> None:
    """An alias can only point at a version that exists."""
    await two_versions(rig)

    with pytest.raises(MregfsError) as caught:
        await rig.symlink(target, "artifacts/mnist/best")

    assert caught.value.errno in (errno.ENOENT, errno.EINVAL)
    assert ["v0", "v1", "latest"] == await rig.names("artifacts/mnist")


async def test_a_read_only_mount_changes_nothing(rig: Rig) -> None:
    """`-o ro` refuses every operation and command, also where the kernel would let it through."""
    await two_versions(rig)
    await rig.control("ln mnist:v0 mnist:best")
    read_only = Rig(rig.store, read_only=True)

    await refused(errno.EROFS, read_only.symlink("v0", "artifacts/mnist/other"))
    await refused(errno.EROFS, read_only.symlink("v0", "artifacts/mnist/.best"))
    await refused(errno.EROFS, read_only.unlink("artifacts/mnist/best"))
    assert not (await read_only.control("mkdir collections/c"))["ok"]
    assert b"{}" == await read_only.read("artifacts/mnist/v0/config.json")


async def test_another_projects_tree_has_the_same_shape(rig: Rig) -> None:
    """Below `projects/` is every project; links across projects resolve on every mount."""
    await two_versions(rig)
    await rig.control("ln mnist:v1 acme/vision/best:production")
    vision = Rig(rig.store, "acme/vision")

    assert ["acme", "default"] == await rig.names("projects")
    assert "../.." == await rig.readlink("projects/default/default")
    assert ["artifacts", "collections", "staging"] == await rig.names("projects/acme/vision")
    for mount, path in [
        (rig, "projects/acme/vision/collections/best/production"),
        (rig, "projects/default/default/artifacts/mnist/latest"),
    ]:
        assert "artifacts/mnist/v1" == await mount.resolve(path)
    assert "projects/default/default/artifacts/mnist/v1" == await vision.resolve(
        "collections/best/production"
    )
    assert b"[1]" == await vision.read("projects/default/default/artifacts/mnist/v1/config.json")
