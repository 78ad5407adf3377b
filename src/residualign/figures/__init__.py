"""One function per figure. Each takes a result; the page, files and notebooks show the same figure."""
