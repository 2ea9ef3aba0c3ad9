"""What ``producer doctor`` and ``worker doctor`` look at, each thing as a value."""
