"""What Prometheus may ask for, in a registry of the server's own."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Counters of a server; any thread may add to them."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "sipo_pl_requests", "Requests of HTTP by route and status", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "sipo_pl_request_seconds", "Time of a request of HTTP", ["route"], buckets=SECONDS, registry=registry
        )
        self.answers = Counter(
            "sipo_pl_answers",
            "Answers by how they ended: stop, length, cancelled, timeout, error, refused",
            ["reason"],
            registry=registry,
        )
        self.first_token = Histogram(
            "sipo_pl_first_token_seconds", "Time to an answer's first token", buckets=SECONDS, registry=registry
        )
        self.prompt_tokens = Counter("sipo_pl_prompt_tokens", "Tokens of prompts", registry=registry)
        self.completion_tokens = Counter("sipo_pl_completion_tokens", "Tokens that were made", registry=registry)

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Report how many requests run and wait at the moment of asking."""
        for name, count in (("running", running), ("waiting", waiting)):
            gauge = Gauge(f"sipo_pl_{name}", f"Requests that are {name}", registry=self.registry)
            gauge.set_function(count)

    def ended(self, reason: str) -> None:
        """Count an answer."""
        self.answers.labels(reason).inc()

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)
