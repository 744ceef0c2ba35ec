"""The use cases over stores in memory and on disk."""
