"""A page about a job or a file of embeddings: collected, projected to two dimensions, written."""
