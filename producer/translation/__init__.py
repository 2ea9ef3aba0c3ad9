"""Contigs to frames: chunks, genetic codes, and what is read in six frames."""
