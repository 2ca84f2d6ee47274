"""Seeds of single rows and epochs, from the run's seed and a name, so that none depends on the company of another."""

import hashlib


def seed_of(seed: int, name: str) -> int:
    """Return the seed of what `name` names within a run of `seed`; below 2**63."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1
