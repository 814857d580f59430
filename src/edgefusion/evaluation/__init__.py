"""Measures, statistics and the report."""
