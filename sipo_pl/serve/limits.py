"""What a server grants: to all requests together, and to one."""

from dataclasses import dataclass

from sipo_pl.messages.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        slots: requests that are decoded at once
        queue: requests that may wait for a slot; more are refused
        max_length: longest prompt and answer in tokens
        timeout: seconds that a request may take, waiting included
        body_bytes: longest body of a request
        grace: seconds that running answers have to end in when the server is stopped
        connections: connections that may be open at once beyond those that wait for answers
        header_seconds: seconds in which the header of a request has to arrive
        arrival_seconds: seconds in which a request has to arrive, from its header's end to its body's
        idle_seconds: seconds that a connection may be open after an answer without another request
    """

    slots: int = 16
    queue: int = 256
    max_length: int = 2048
    timeout: float = 300.0
    body_bytes: int = 1 << 20
    grace: int = 5
    connections: int = 256
    header_seconds: float = 10.0
    arrival_seconds: float = 30.0
    idle_seconds: float = 30.0

    def __post_init__(self) -> None:
        least = {"slots": 1, "queue": 0, "max_length": 2, "body_bytes": 1024}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UsageError(f"{name}: {getattr(self, name)} is less than {bound}")
        if not 0 < self.timeout < float("inf"):
            raise UsageError(f"timeout: {self.timeout:g} is no number of seconds above zero")

    @property
    def at_once(self) -> int:
        """Return how many requests may run and wait together."""
        return self.slots + self.queue

    @property
    def most_connections(self) -> int:
        """Return how many connections may be open at once; those without a request make room for others."""
        return self.at_once + self.connections

    @property
    def to_arrive(self) -> float:
        """Return the seconds in which a request's body has to arrive."""
        return min(self.arrival_seconds, self.timeout)
