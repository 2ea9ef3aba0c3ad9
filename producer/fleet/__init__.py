"""A fleet and its jobs, as the command line, ``--local`` and the Python API use them."""
