"""ESM-1b and ESM-1v."""
