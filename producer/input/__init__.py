"""FASTA to checked records, and records to batches."""
