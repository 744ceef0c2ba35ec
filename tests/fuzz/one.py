"""Fuzzes one target, in a process of its own.

    python -m tests.fuzz.one TARGET CORPUS [LIBFUZZER OPTION…]

Decided here: how much time and memory one answer may take. atheris is imported first: it rewrites
what is imported after it, so that libFuzzer sees which lines were reached.
"""

import sys

import atheris

with atheris.instrument_imports(include=["mregfs", "tests.fuzz.targets"]):
    from tests.fuzz.targets import PLANTED, TARGETS

LIMITS = ("-timeout=10", "-rss_limit_mb=2048", "-max_len=65536")


def main() -> None:
    """Fuzz until something is found or the time is over; libFuzzer says so."""
    target = (TARGETS | {PLANTED.name: PLANTED})[sys.argv[1]]

    def check(data: bytes) -> None:
        target.run(data)

    atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[2:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
