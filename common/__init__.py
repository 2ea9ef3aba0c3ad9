"""What producers and workers agree on: no torch, no command line."""

from importlib.metadata import version

__version__ = version("virnucpro-fleet")
