"""Compares several models on one target: plans, tables, joint and single-domain training, significance tests."""
