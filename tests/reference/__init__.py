"""The papers' equations once more, literally, in NumPy float64: what the models are compared with."""
