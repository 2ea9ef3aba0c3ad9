"""The code that producers and workers share: no torch, no command line, no printing."""


def __getattr__(name: str) -> str:
    """Return ``__version__``, which few modules need: to look it up takes a while."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    found = globals()[name] = version("virnucpro-fleet")
    return found
