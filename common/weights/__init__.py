"""Weights that are not a path of this machine: a revision on the hub, objects in a bucket."""
