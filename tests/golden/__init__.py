"""Files of each format version, as they were first written."""
