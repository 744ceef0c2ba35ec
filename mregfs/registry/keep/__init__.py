"""The care of what is stored: checks, repairs, and copies in one piece."""
