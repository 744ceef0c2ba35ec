"""Commits: how directories become versions."""
