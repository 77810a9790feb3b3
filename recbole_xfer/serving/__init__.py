"""Serves a finished run: exports its vectors and its user encoder."""
