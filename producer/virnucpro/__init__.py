"""VirNucPro's classifier: its files, scores, calls and training."""
