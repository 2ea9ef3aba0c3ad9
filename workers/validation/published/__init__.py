"""``worker validate --published``: this installation against numbers of the authors' own code."""
