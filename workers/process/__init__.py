"""Processes: the supervisor, and the worker processes that it starts."""
