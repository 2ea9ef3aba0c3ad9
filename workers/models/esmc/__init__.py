"""ESM C."""
