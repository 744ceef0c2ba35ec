"""Pure values and rules: no I/O, no clock, no randomness; everything comes in by argument."""
