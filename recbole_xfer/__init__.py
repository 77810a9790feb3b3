"""RecBole-Xfer: transfer learning for RecBole.

Importing the package registers its models, so that RecBole's own functions find them too.
"""

from recbole_xfer import plugin
from recbole_xfer.version import __version__

__all__ = ["__version__"]

plugin.install()
