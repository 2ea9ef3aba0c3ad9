"""The ``producer`` command."""

from producer.cli.app import app, main

__all__ = ["app", "main"]
