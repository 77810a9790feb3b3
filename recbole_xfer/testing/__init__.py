"""Tests that every model must pass, for this package's models and those of other packages."""
