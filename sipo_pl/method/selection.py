"""Which responses survive: combine and filter, as pure decisions over scores. No model is needed here."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Rewards = dict[str, float]  # reward model -> implicit reward of one response


class Candidate(NamedTuple):
    """A scored candidate for a pair.

    Args:
        sample_id: its id
        rewards: by reward model
        order: position among the pair's candidates, earlier weights first; breaks ties
    """

    sample_id: str
    rewards: Rewards
    order: int


class Choice(NamedTuple):
    """The candidate kept for a pair.

    Args:
        candidate: the kept one
        margin: its smallest advantage over a response of the pair, over all reward models
    """

    candidate: Candidate
    margin: float


def better_of(original: Rewards, rewrite: Rewards, policies: Sequence[str]) -> Literal["original", "rewrite"]:
    """Return which of a response and its rewrite goes on.

    The rewrite replaces its original unless the original is at least as good under every single-objective implicit
    reward (arXiv 2502.14354, section on refinement).

    Args:
        original: rewards of the response.
        rewrite: rewards of its rewrite.
        policies: the reward models that are single-objective policies.
    """
    return "original" if all(rewrite[name] <= original[name] for name in policies) else "rewrite"


def minimum_margin(candidate: Rewards, responses: Sequence[Rewards]) -> float:
    """Return the smallest advantage of a candidate over any of `responses` under any reward model."""
    return min(candidate[model] - response[model] for response in responses for model in response)


def survivors(candidates: Sequence[Candidate], responses: Sequence[Rewards]) -> list[Candidate]:
    """Return the candidates that score strictly higher than every response of the pair under every reward model."""
    return [candidate for candidate in candidates if minimum_margin(candidate.rewards, responses) > 0]


def select_pareto(candidates: Sequence[Candidate], responses: Sequence[Rewards]) -> Choice | None:
    """Return the survivor with the highest unweighted sum of rewards, the earlier of equals; None if none survives."""
    alive = survivors(candidates, responses)
    if not alive:
        return None
    best = max(alive, key=lambda candidate: (sum(candidate.rewards.values()), -candidate.order))
    return Choice(best, minimum_margin(best.rewards, responses))


def select_best_margin(candidates: Sequence[Candidate], responses: Sequence[Rewards]) -> Choice | None:
    """Return the candidate with the largest minimum margin, survivor or not; equal margins keep the earlier."""
    if not candidates:
        return None
    best = max(candidates, key=lambda c: (minimum_margin(c.rewards, responses), -c.order))
    return Choice(best, minimum_margin(best.rewards, responses))
