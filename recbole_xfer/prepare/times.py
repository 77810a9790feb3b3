"""The rule for times that are numbers."""

MILLISECONDS = 1e11
"""Numbers from here on are milliseconds since 1970: as seconds, they are after the year 5000."""
