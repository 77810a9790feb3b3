"""Tests of the check of domains."""
