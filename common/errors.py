"""Errors that a user can mend: the command prints the text alone and exits with code 2."""


class UserError(Exception):
    """What happened, where (file, line, record) and what to do about it."""
