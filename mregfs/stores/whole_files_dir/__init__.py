"""Whole-file copies in a directory of the host, of files that are stored in several pieces.

directory.py   what is there, what it may take, what is evicted
draft.py       one file: complete, or in the making
"""

from mregfs.stores.whole_files_dir.directory import WholeFilesDirectory, default_limit

__all__ = ["WholeFilesDirectory", "default_limit"]
