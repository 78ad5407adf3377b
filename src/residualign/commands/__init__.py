"""One file per command: its request, which defines the command line, and the function that runs it without printing."""
