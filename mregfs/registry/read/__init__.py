"""Looking at a registry: what there is, what happened, and the bytes of versions."""
