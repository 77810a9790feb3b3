"""From a finished run to recommendations: models for all interactions and for new ones."""
