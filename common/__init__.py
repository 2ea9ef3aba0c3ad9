"""The code that producers and workers share: no torch, no command line, no printing."""

from importlib.metadata import version

__version__ = version("virnucpro-fleet")
