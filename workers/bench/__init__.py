"""``worker bench``: the speed of this machine, with nothing to set up.

``forward`` times the model alone, ``fleet`` a real worker between a real queue and a real store.
Weights and sequences are random: speed does not depend on them.
"""
