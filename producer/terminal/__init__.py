"""Tables, progress and messages for people."""
