"""The use cases: log, catalog, commit, content, history, usage. They know ports, never drivers."""
