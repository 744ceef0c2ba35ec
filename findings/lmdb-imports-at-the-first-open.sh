#!/bin/bash
# lmdb 3.0.0 (py-lmdb, the C extension): the first lmdb.open() of a process imports a module.
#
# `import lmdb` loads the extension, and everything that a program can name is there. The first
# lmdb.open() then imports lmdb._envid, a module of Python, from the disk. A process that can read its
# packages no more (it has become another user, it has changed its root, it has no descriptor left)
# fails there with ModuleNotFoundError, which is no lmdb.Error: a program that guards its open with
# `except lmdb.Error` ends with a traceback. An environment that was opened before makes it work.
#
# One would have guessed that a C extension is whole once it is imported, and that open() raises
# lmdb.Error for whatever is wrong. A program that drops its rights has to open some environment, or
# import lmdb._envid, before it does.
#
# Needs root, to become another user.
set -euo pipefail
work=$(mktemp -d)
data=$(mktemp -d)
trap 'rm -rf "$work" "$data"' EXIT
chmod 777 "$data"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install --quiet lmdb==3.0.0

# $work is 0700, as home directories are: another user finds no module below it.
cat >"$work/open.py" <<'PY'
import os
import sys

import lmdb

if sys.argv[2] == "imported-before":
    import lmdb._envid
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    with lmdb.open(f"{sys.argv[1]}/{sys.argv[2]}"):
        print("opened")
except lmdb.Error as error:
    print("lmdb.Error:", error)
except ImportError as error:
    print(f"{type(error).__name__}: {error}")
PY
told=$(for when in lazily imported-before; do
	echo "$when: $("$work/venv/bin/python" "$work/open.py" "$data" "$when")"
done)
echo "$told"
expected="lazily: ModuleNotFoundError: No module named 'lmdb._envid'
imported-before: opened"
if [ "$told" = "$expected" ]; then
	echo "as found: the first open imports a module"
else
	echo "this has changed" >&2
	exit 1
fi
