"""Mounts of stores that are not all they should be: what works without, works."""


def test_a_cache_that_is_not_usable_keeps_no_mount_from_being(make_mount) -> None:
    """Copies in one piece are for speed; but a size that was asked for is set, or refused."""
    mount = make_mount()
    mount.init()
    (mount.store / "cache/whole/lock").mkdir(parents=True)
    mount.expect_log("the cache of copies in one piece is left as it is: cannot use the cache")
    mount.start()
    version = mount.commit("mnist", {"config.json": b"{}"})

    assert b"{}" == (version / "config.json").read_bytes()
    mount.stop()
    assert "left as it is" in mount.log.read_text()
    words = ("mount", mount.store, mount.path, "-o", "cache_size=4M")
    assert 0 != mount.cli(*words, check=False).returncode
