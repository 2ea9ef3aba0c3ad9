"""Self-attention within segments, with or without ALiBi: one module, one choice of kernel."""
