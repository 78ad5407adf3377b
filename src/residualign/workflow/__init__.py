"""What the commands do, as functions: they take arguments and give results, and print nothing."""
