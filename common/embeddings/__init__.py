"""Embeddings as arrays and as HDF5 files."""
