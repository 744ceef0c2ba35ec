"""The care of what is stored: checks, repairs, and whole-file copies."""
