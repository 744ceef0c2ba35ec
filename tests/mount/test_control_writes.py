"""What real tools write to `.mregfs/control`, and how much of it is believed."""

import json
import time


def test_a_script_that_is_flushed_within_a_line_deletes_nothing(registry_mount) -> None:
    """`seq` flushes at 4096 bytes: that write ends in `rm collections/s30`, cut of `s302`."""
    registry_mount.sh(
        "{ echo begin; seq -f 'mkdir collections/s%g' 500; echo end; } > .mregfs/control"
    )
    done = registry_mount.sh("seq -f 'rm collections/s%g' 98 500 > .mregfs/control", check=False)

    assert 0 != done.returncode
    assert "Invalid argument" in done.stderr
    assert "mregfs run" in registry_mount.sh("cat .mregfs/control").stdout
    assert 500 == len(registry_mount.sh("ls collections").stdout.split())


def test_begin_and_end_hold_a_script_of_many_writes(registry_mount) -> None:
    """Several programs write to one descriptor, each as often as it likes: one entry of the log."""
    registry_mount.commit("mnist", {"a": b"1"})
    registry_mount.sh(
        "{ echo begin; seq -f 'mkdir collections/shelf-%g' 500; echo end; } > .mregfs/control"
    )

    reply = json.loads(registry_mount.sh("cat .mregfs/control").stdout)
    assert (True, 500) == (reply["ok"], len(reply["results"]))
    assert 500 == len(registry_mount.sh("ls collections").stdout.split())


def test_a_begun_script_without_its_end_leaves_a_reason(registry_mount) -> None:
    registry_mount.sh("{ echo begin; echo mkdir collections/a; } > .mregfs/control")

    deadline = time.monotonic() + 10  # Linux tells of the last close after close(2) has returned
    while "before its `end`" not in (said := registry_mount.sh("cat .mregfs/control").stdout):
        assert time.monotonic() < deadline, said
    assert "" == registry_mount.sh("ls collections").stdout


def test_run_sends_a_file_as_one_transaction(registry_mount, tmp_path) -> None:
    script = tmp_path / "script"
    script.write_text("# shelves\n" + "".join(f"mkdir collections/c{n}\n" for n in range(500)))
    registry_mount.cli("run", str(script))
    assert 500 == len(registry_mount.sh("ls collections").stdout.split())

    script.write_text("mkdir collections/more\n\nln nothing:v0 x:y")
    done = registry_mount.cli("run", str(script), check=False)
    assert 3 == done.returncode
    assert "line 3 (ln)" in done.stderr
    assert 500 == len(registry_mount.sh("ls collections").stdout.split())
