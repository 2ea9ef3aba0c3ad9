"""Processes and GPUs of this machine."""
