"""Command line verbs. Heavy imports stay inside the verbs that need them."""
