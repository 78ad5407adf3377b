"""The recipe of the text dictionary: word lists of our own, and the few lines that put them into phrases."""
