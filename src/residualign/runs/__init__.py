"""A run on disk: its folder, its log, and what it keeps for a report."""
