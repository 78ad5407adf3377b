"""The shape of what units represent: dimensions, profiles over depth, how classes lie in it."""
