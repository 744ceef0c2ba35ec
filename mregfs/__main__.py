"""Run the command line as `python -m mregfs`.

Decided here: nothing. Everything is decided in `mregfs.cli`; only the interpreter calls this.
"""

from mregfs.cli.main import main

if __name__ == "__main__":
    main()
