"""RecBole-Xfer: transfer learning for RecBole. Importing the package registers its models with RecBole."""

from recbole_xfer import compat  # noqa: F401  first of all: it makes RecBole importable on today's numpy and torch
from recbole_xfer.registry import register

register()

__version__ = "0.1.0"
