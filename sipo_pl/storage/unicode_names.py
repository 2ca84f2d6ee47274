"""Names that look the same are the same: letters beyond ASCII may be written in several ways (Unicode normal forms)."""

import unicodedata
from collections.abc import Iterable


def composed(name: str) -> str:
    """Return a name in the normal form in which a letter and its accent are one character (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def same_name(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `name` means: itself, or the only one that differs in its normal form alone."""
    known = list(known)
    if name in known:
        return name
    alike = [one for one in known if isinstance(one, str) and composed(one) == composed(name)]
    return alike[0] if len(alike) == 1 else None
