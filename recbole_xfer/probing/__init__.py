"""Measures how well probes distinguish domains, or head and tail users, by vectors of items and users."""
