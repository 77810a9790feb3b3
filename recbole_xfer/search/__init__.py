"""Searches for the best configuration: the space, its trials on Ray, and their record."""
