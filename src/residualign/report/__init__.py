"""The page, its tables and its figures, from results that are there: nothing is computed here."""
