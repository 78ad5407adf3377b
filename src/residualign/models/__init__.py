"""What differs between model families, and only that."""
