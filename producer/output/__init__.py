"""Shards to one file."""
