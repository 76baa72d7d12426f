"""The one error that ends a program with exit code 2: something the user can mend."""


class BadInput(Exception):
    """Wrong input. The message is one line: the field or object, what was found, what to do."""
