"""The ``producer`` command."""

from producer.cli.submit import app, main

__all__ = ["app", "main"]
