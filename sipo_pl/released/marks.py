"""Marks that keep no text out."""

from collections.abc import Sequence


def is_marked_or_not(marks: Sequence[str]) -> bool:
    """Return that a text of any marks is reviewed and scored, and may be kept."""
    return True
