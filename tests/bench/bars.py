"""The bars: what has to hold, as the specification has it. The only place with these numbers."""

from tests.bench.figures import NATIVE, Bar
from tests.bench.files import CHANGES
from tests.bench.peers import SQUASHFUSE
from tests.bench.registry_mount import CACHED, DEDUPLICATED, MREGFS
from tests.bench.studies.aliases import FSYNC
from tests.bench.studies.answering import LOOKUPS, MOVES
from tests.bench.studies.committing import HASHING

__all__ = ["BARS"]


def _at_least(
    limit: float,
    title: str,
    series: str,
    reference: str | None,
    subject: str = MREGFS,
    unit: str = "",
) -> Bar:
    return Bar(title, series, subject, reference, limit, at_least=True, unit=unit)


def _at_most(
    limit: float,
    title: str,
    series: str,
    reference: str | None,
    subject: str = MREGFS,
    unit: str = "",
) -> Bar:
    return Bar(title, series, subject, reference, limit, at_least=False, unit=unit)


BARS: tuple[Bar, ...] = (
    _at_least(0.9, "first sequential read ÷ native", "first_read", NATIVE),
    _at_least(0.95, "second sequential read ÷ native", "second_read", NATIVE),
    _at_least(0.95, "cold sequential read from disk ÷ native", "cold_read", NATIVE),
    _at_least(0.95, "load of all tensors (safe_open) ÷ native", "tensors", NATIVE),
    _at_least(0.85, "random 4 KiB pread ÷ native", "random_read", NATIVE),
    _at_most(1.05, "page cache used for one read ÷ native", "page_cache", NATIVE),
    _at_least(0.8, "write of a draft ÷ native", "write", NATIVE),
    _at_least(0.8, "write of a draft with fsync ÷ native", "write_fsync", NATIVE),
    _at_most(1.3, "commit ÷ hashing with all cores", "commit", HASHING),
    _at_most(0, "file data that the commit writes", "commit_copied", None, unit="bytes"),
    _at_least(2, "cached path, first read ÷ squashfuse", "first_read", SQUASHFUSE, CACHED),
    _at_least(
        2, "deduplicated file, first read ÷ squashfuse", "first_read", SQUASHFUSE, DEDUPLICATED
    ),
    *(
        _at_most(0.05, f"{name}: stored beyond FastCDC", "stored_excess", None, name, "of the file")
        for name in CHANGES
    ),
    _at_least(1, "stat of 2000 files by name, cold ÷ squashfuse", "stat_cold", SQUASHFUSE),
    _at_least(1, "walk of 2000 files with stat, cold ÷ squashfuse", "walk_cold", SQUASHFUSE),
    _at_least(0.8, "stat of 2000 files, warm ÷ native", "stat_warm", NATIVE),
    _at_most(3, "alias move, durable, p50 ÷ one fsync", "alias_move", FSYNC),
    _at_least(8000, "open + close of a published file", "open_close", None, unit="/s"),
    _at_most(20, "lookups during a commit, p99", "answers", None, LOOKUPS, "ms"),
    _at_most(20, "alias moves during a commit, p99", "answers", None, MOVES, "ms"),
    _at_most(2, "mount with 100 000 versions", "scale_mount", None, unit="s"),
    _at_most(200, "resident set with 100 000 versions", "scale_rss", None, unit="MB"),
    _at_most(50, "ls of 100 versions", "scale_ls", None, unit="ms"),
)
