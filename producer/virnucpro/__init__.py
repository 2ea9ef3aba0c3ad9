"""VirNucPro: frames to scores of a classifier, scores to virus calls, and training one."""
