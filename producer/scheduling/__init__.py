"""Keeping jobs going: publishing batches, requeuing lost ones, restoring ledgers."""
