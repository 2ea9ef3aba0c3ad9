"""Weights from elsewhere: on the hub or in a bucket, and their copies on this machine."""
