"""Programs that measure time and memory: `python -m benchmarks.speed.NAME`."""
