"""The unit files mean what systemd reads in them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
NEW_NAMESPACE = re.compile(
    r"^(Private|Protect|ReadOnlyPaths|InaccessiblePaths|BindPaths|TemporaryFileSystem|RootDirectory"
    r"|DynamicUser|MountFlags|MountAPIVFS)",
    re.MULTILINE,
)

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@needs_systemd
@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_systemd_finds_nothing_to_complain_about(unit: Path, tmp_path: Path) -> None:
    """Every unit passes `systemd-analyze verify`, as an instance for the mount point /models."""
    program = tmp_path / "mregfs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    # Verified as on a host where mregfs is on systemd's own search path.
    text = re.sub(r"^(Exec\w+=)mregfs ", rf"\1{program} ", unit.read_text(), flags=re.MULTILINE)
    copy = tmp_path / unit.name
    copy.write_text(text)
    instance = tmp_path / unit.name.replace("@.", "@models.")
    if instance != copy:
        instance.symlink_to(copy.name)
    verify = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(instance)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        check=False,
    )
    assert (0, "") == (verify.returncode, verify.stderr)


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_no_unit_hides_the_mount_from_the_host(unit: Path) -> None:
    """No directive puts the daemon into a mount namespace of its own."""
    assert [] == NEW_NAMESPACE.findall(unit.read_text())


@needs_systemd
@pytest.mark.parametrize("path", ["/models", "/srv/ml models/prod-1", "/mnt/a/b"])
def test_the_instance_name_is_the_escaped_mount_point(path: str) -> None:
    """The documented systemd-escape command gives an instance whose %f is the mount point."""
    made = ["systemd-escape", "--path", "--template=mregfs@.service", path]
    name = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip()
    read = ["systemd-escape", "--unescape", "--path", "--instance", name]
    assert path == subprocess.run(read, capture_output=True, text=True, check=True).stdout.strip()
