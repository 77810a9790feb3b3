"""RecBole-Xfer: transfer learning for RecBole.

Importing the package registers its models as soon as RecBole is imported, so that RecBole's own functions find them
too. Until then it imports nothing that takes seconds.
"""

from importlib import import_module

from recbole_xfer.import_hooks import after_import, before_import
from recbole_xfer.runtime import keep_freed_memory, wait_briefly
from recbole_xfer.version import __version__

__all__ = ["__version__"]

wait_briefly()
keep_freed_memory()

before_import("torchvision", lambda _: import_module("recbole_xfer.compat").define_torchvision_ops())
after_import("recbole", lambda _: import_module("recbole_xfer.plugin").register())
