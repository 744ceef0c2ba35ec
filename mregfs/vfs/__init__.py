"""What the registry looks like as files. No pyfuse3, no lmdb, no mount needed."""
