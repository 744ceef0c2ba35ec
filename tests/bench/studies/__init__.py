"""What is measured: one module per kind of work, one function per figure."""
