"""More than one machine: comparisons and searches as Ray tasks."""
