"""Command line verbs: what a person types, and what they see.

Decided here: argv, the environment, which store and mount are meant, tables, progress, exit codes.
Not decided here: anything about a registry; every verb is one call of `mregfs.Registry`, or one
line on the control file of a mount.

Each verb's module is imported when that verb is used, and imports what it needs inside the verb.
"""
