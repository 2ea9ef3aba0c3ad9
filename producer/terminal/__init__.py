"""Tables, progress display and messages on the terminal."""
