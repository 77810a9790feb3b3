"""The one exception that the command line prints as a sentence instead of a traceback."""


class XferError(ValueError):
    """An error in the input.

    The message is one sentence, or two: it names the file, column, row or key, and says what to do.
    """
