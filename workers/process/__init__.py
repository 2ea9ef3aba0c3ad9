"""Processes: the supervisor and the worker."""
