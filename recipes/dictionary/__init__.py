"""The recipe of the text dictionary: word lists, and the code that puts them into phrases."""
