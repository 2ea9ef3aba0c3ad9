"""Odd and broken inputs, each with everything that is to come of it.

``cases.toml`` has files that ``producer submit`` embeds or refuses (``tests/integration``). The
modules beside it have, by format, those that are read alone (``test_odd_files.py``).
"""
