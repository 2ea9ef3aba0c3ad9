"""The code that producers and workers share: no torch, no command line, no printing."""


def __getattr__(name: str) -> str:
    """Return ``__version__``; to look it up takes a while, which few modules need."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("virnucpro-fleet")
