"""One batch through a worker."""
