"""From a finished run to recommendations, refitted and updated models, and exported vectors."""
