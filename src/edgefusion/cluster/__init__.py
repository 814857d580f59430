"""More than one machine: comparisons, searches and predictions on a Ray cluster."""
