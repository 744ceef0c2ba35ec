"""The index on LMDB: `IndexLmdb`, the only importer of lmdb.

`index` is the port, `environment` one open LMDB environment shared by a process, `files` what may
be trusted of the directory that it stands in. `../stores.md` says why.
"""

from mregfs.stores.index_lmdb.index import IndexLmdb

__all__ = ["IndexLmdb"]
