"""What residual units mean in words: a dictionary of short texts, and the few of them that describe a unit."""
