"""The one exception that the command line prints as a sentence instead of a traceback."""


class XferError(ValueError):
    """A mistake in the input, explained.

    The message is one sentence (or two) that names the file, column, row or key and says what to do
    about it.
    """
