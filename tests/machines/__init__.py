"""Random machines that are compared with something simple."""
