"""The command line. Its help and completion import none of the libraries that take seconds, such as torch."""
