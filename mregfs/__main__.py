"""Run the command line: as `python -m mregfs`, and as the console script.

Decided here: what Ctrl-C does before the command line can say so itself. Everything else is decided
in `mregfs.cli`.
"""

import sys
from typing import NoReturn

__all__ = ["main"]

_EXIT_INTERRUPTED = 130  # mregfs.cli.main has it too, but may not be imported yet


def main() -> NoReturn:
    """Run the command line of this process, and exit; a tenth of a second goes into imports."""
    try:
        from mregfs.cli.main import main as run

        run()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("mregfs: interrupted", file=sys.stderr)
        sys.exit(_EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
