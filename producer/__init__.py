"""FASTA in, batches out; a job's progress; results back. Never imports torch."""
