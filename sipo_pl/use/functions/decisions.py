"""Decisions of combine and filter from lists of scores."""

from collections.abc import Sequence

from sipo_pl.method.selection import Candidate, Rewards, better_of, select_pareto


def take_rewrite(mod_scores: Sequence[float], rewrite_scores: Sequence[float]) -> bool:
    """Return whether a rewrite replaces its original; `sipo_pl.method.selection.better_of` over lists.

    Args:
        mod_scores: the original's implicit reward under each single-objective policy.
        rewrite_scores: the rewrite's.
    """
    original, rewrite = _by_model(mod_scores), _by_model(rewrite_scores)
    return better_of(original, rewrite, list(original)) == "rewrite"


def select_sample(
    chosen_scores: Sequence[float], rejected_scores: Sequence[float], sample_scores: Sequence[Sequence[float]]
) -> int | None:
    """Return the index of the sample that a pair keeps, if any; `sipo_pl.method.selection.select_pareto` over lists.

    Args:
        chosen_scores: scores of one response of the pair, one for each reward model.
        rejected_scores: scores of the other.
        sample_scores: scores of each sample, earlier weights first.
    """
    candidates = [Candidate(str(order), _by_model(scores), order) for order, scores in enumerate(sample_scores)]
    choice = select_pareto(candidates, [_by_model(chosen_scores), _by_model(rejected_scores)])
    return choice.candidate.order if choice else None


def _by_model(scores: Sequence[float]) -> Rewards:
    return {str(model): score for model, score in enumerate(scores)}
