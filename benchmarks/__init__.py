"""Programs that measure speed and memory; run them from the repository root, as in `python -m benchmarks.NAME`."""
