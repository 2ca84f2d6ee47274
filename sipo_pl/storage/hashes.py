"""Content hashes of JSON-like values, and which hashes stand for the same content."""

import hashlib
import re
from typing import Any

from sipo_pl.storage.json_lines import canonical_json

HASH_PARTS = "+"  # between the parts of a hash, see `same_hash`
_HASH = re.compile(r"[0-9a-f]{64}(\+[0-9a-f]{64})*")


def content_hash(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def same_hash(one: object, other: object) -> bool:
    """Return whether two hashes agree in all parts that both have; an older version knew the first part alone."""
    if not (isinstance(one, str) and isinstance(other, str) and _HASH.fullmatch(one) and _HASH.fullmatch(other)):
        return False
    parts = zip(one.split(HASH_PARTS), other.split(HASH_PARTS), strict=False)
    return all(first == second for first, second in parts)
