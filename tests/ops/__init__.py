"""Tests of what an operator runs beside the fleet: ``make ops``."""
