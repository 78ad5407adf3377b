"""Which heads carry a task: scores, ablations, and how well the chosen ones agree."""
