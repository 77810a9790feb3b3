"""Runs comparisons of many models, datasets, settings and seeds: cells in parallel, estimates, and written tables."""
