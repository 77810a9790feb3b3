"""Configuration: values, defaults, validation, and the configuration of a run."""
