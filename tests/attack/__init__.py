"""What attacks need: people with uids of their own, and things of theirs to keep an eye on."""
