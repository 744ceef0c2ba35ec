"""Adapters: each implements one port of `mregfs.ports` on one driver."""
