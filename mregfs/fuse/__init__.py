"""The FUSE face: the only importer of pyfuse3."""
