"""The log: appending to it, following it, and what makes the index of it."""
