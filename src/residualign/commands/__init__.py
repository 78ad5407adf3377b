"""One file per command: its request, which is its command line, and the function that runs it; nothing is printed."""
