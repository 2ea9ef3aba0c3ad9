"""Reading FASTA into checked records, and cutting records into batches."""
