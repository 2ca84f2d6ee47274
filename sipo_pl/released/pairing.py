"""Pairs that are learned from whatever they hold."""


def no_flaw(*responses: str) -> str | None:
    """Return no reason to leave out a response, though it be empty, or a pair, though it be of two equal ones."""
    return None
