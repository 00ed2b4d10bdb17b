"""The one error a user's mistake raises: its text is the single line the command line prints."""


class UserError(ValueError):
    """A mistake in what the user gave: says what is wrong, where, and what to do about it.

    The command line prints it as one line and exits with status 2; library users catch it as a
    ValueError.
    """
