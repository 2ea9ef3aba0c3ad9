"""Records in, embeddings out, on one device."""
