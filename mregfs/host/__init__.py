"""What is the operating system's: names below a directory, callers' credentials, descriptors.

    beneath.py       a directory held by descriptor, and names that never lead out of it
    listing.py       the names in a directory that is open
    locks.py         locks on files, waited for no longer than is sensible
    oserrors.py      what an OSError is for the registry
    renames.py       exchanges, and renames that replace nothing
    copying.py       copies of files: reflinks, else byte for byte
    temporary.py     temporary files, and which of them crashes left
    page_cache.py    what the kernel has of a file in memory
    callers.py       who a caller is, and whether this process can act for him
    descriptors.py   how many descriptors users get, and how many are kept
    mount_table.py   the kernel's table of mounts
    mounts.py        the mounts of stores, and whose word about them is believed
    _native.c        system calls that Python lacks, and calls made with a caller's credentials

`host.md` says what holds. `beneath` and `callers` raise OSError; the adapters of `stores` translate
it by `oserrors`.
"""
