"""The daemon as a process of the host: its log, its descriptors, what systemd hears of it.

Decided here: where log lines go, how many files may be open, the words for systemd. Not decided
here: when the mount is ready (`lifecycle`).
"""

import logging
import os
import resource
import socket

__all__ = ["log_to_stderr", "raise_descriptor_limit", "tell_systemd"]

log = logging.getLogger(__name__)


def tell_systemd(state: str) -> None:
    """Send a state to systemd's notify socket (sd_notify(3)), when there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as exc:
        log.warning("systemd was not told %s: %s", state, exc)


def raise_descriptor_limit() -> None:
    """Open files of users are descriptors of the daemon: take as many as the host allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard
    if os.geteuid() == 0:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
            wanted = max(hard, min(int(file.read()), 1 << 20))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (OSError, ValueError) as exc:
        log.info("the limit of open files stays at %d: %s", soft, exc)


def log_to_stderr(level: str) -> None:
    """Write what the project logs to standard error, from a level up."""
    root = logging.getLogger("mregfs")
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(level)
