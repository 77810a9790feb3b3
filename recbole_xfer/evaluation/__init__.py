"""Measures rankings: the result of a run, groups of users, ranking within domains."""
