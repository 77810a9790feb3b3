"""The papers' equations, literally, in NumPy float64, for comparison with the models."""
