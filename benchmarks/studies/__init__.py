"""Programs that search settings and write a plan: `python -m benchmarks.studies.NAME`."""
