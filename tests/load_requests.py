"""The requests of `make load`: drawn by a seed, of mixed weights, lengths and interfaces."""

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

NAMES = ("detail", "ease")
TOPICS = ("bees", "the tides", "bread", "old maps", "sleep", "rust", "violins", "clouds", "the number zero", "paper")


class Case(NamedTuple):
    """A load.

    Args:
        model: tiny or smollm2
        requests: how many
        at_once: how many are open at a time
        cancelled: share of them, at least
        tokens: shortest and longest answer
        slots: of the server
        threads: of the server's matrix products
    """

    model: str
    requests: int
    at_once: int
    cancelled: float
    tokens: tuple[int, int]
    slots: int
    threads: int


MORE = 1.4  # times as many are to be cancelled as must be: some end by themselves before
CASES = {
    "tiny": Case("tiny", 500, 50, 0.2, (8, 64), 32, 1),
    "smollm2": Case("smollm2", 70, 50, 0.2, (32, 64), 32, 2),
}


@dataclass(frozen=True)
class Asked:
    """A request.

    Args:
        path: of the interface
        body: as JSON
        after: pieces after which it is cancelled; it is not where there is none
    """

    path: str
    body: dict[str, Any]
    after: int | None = None


def draw_requests(case: Case, seed: int) -> list[Asked]:
    """Return the requests of a case."""
    rng = random.Random(seed)
    cancelled = set(rng.sample(range(case.requests), round(MORE * case.requests * case.cancelled)))
    return [_draw(index, case, rng, index in cancelled) for index in range(case.requests)]


def _draw(index: int, case: Case, rng: random.Random, cancelled: bool) -> Asked:
    weight = rng.randint(0, 10) / 10
    text = f"{index}: " + " and ".join(rng.sample(TOPICS, rng.randint(1, 4))) + "?"
    body: dict[str, Any] = {"temperature": 0, "max_tokens": rng.randint(*case.tokens)}
    if rng.random() < 0.5:
        body |= {"model": f"load@{weight:g},{1 - weight:g}"}
    else:
        body |= {"model": "load", "weights": dict(zip(NAMES, (weight, round(1 - weight, 1)), strict=True))}
    if rng.random() < 0.75:
        path, body["messages"] = "/chat/completions", [{"role": "user", "content": f"Tell me about {text}"}]
    else:
        path, body["prompt"] = "/completions", f"This is what is known about {text}"
    if cancelled:  # long, so that none ends before it is cancelled
        return Asked(path, {**body, "stream": True, "max_tokens": 500}, rng.randint(0, 4))
    if rng.random() < 0.5:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Asked(path, body)
