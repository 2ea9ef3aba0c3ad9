"""The ledger: the progress of all jobs, in Redis."""
