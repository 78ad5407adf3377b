"""A run on disk: its folder, its log, and what is left in it for a later report."""
