"""The index on LMDB: `IndexLmdb`, the only importer of lmdb.

`index` is the port. Below it: `environments`, the environments of this process; `environment`, one
of them; `open_environment`, what LMDB is told; `files`, what may be trusted of the directory.
`../stores.md` says why.
"""

from mregfs.stores.index_lmdb.index import IndexLmdb

__all__ = ["IndexLmdb"]
