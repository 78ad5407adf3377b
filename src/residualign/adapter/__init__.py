"""What was learned, as a thing: an adapter predicts, is saved, folds into one map, and says which units decided."""
