"""The layouts of an output, a module each."""
