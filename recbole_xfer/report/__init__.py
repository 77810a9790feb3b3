"""Draws runs and explains rankings: pictures, and HTML pages from one template."""
