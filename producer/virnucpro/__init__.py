"""VirNucPro: frames to scores of a classifier, and scores to virus calls."""
