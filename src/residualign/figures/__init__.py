"""One function per figure. Each takes tables; the page, files and notebooks show the same figure."""
