"""The one exception that is meant for the user: it names the value, what was expected and what to do."""


class InputError(Exception):
    """Input that cannot be used. The command line prints its text on one line and exits with status 2."""


class Ended(Exception):
    """Training was asked to end (SIGTERM) and did so after an epoch. The command line exits with status 143."""
