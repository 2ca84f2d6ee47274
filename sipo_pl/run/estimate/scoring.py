"""What each stage takes that scores text."""

from collections.abc import Mapping
from typing import Any

from sipo_pl.run.estimate.stages import GIB, Cost, Setting, rows_bytes, value


def score(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of the implicit rewards of candidates, rewrites and the responses of their pairs."""
    counts = setting.counts
    rewritten = setting.rewrites and value(config, "model.rewrites", True)
    rows = setting.candidates * (2 if rewritten else 1) + 2 * setting.sampled_pairs
    soups = setting.sampled if value(config, "model.soups", True) else 0
    groups = setting.objectives + soups + 1  # policies, interpolations, base
    tokens = rows * counts.response + setting.sampled_prompts * counts.prompt  # prompts are shared by what answers them
    return _score(setting, devices, rows, groups * tokens)


def measure(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of the rewards of an evaluation's answers."""
    answered = f"evaluate-{value(config, 'policies', 'align')}"
    rows = setting.test_prompts(answered) * (setting.evaluated + bool(setting.of(answered, "model.base", True)))
    return _score(setting, devices, rows, _judged_tokens(setting, rows))


def judge(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of the rewards of all methods' answers, and of a judge that reads each beside the baseline's."""
    counts = setting.counts
    rows = setting.test_prompts("answer") * setting.entrants
    tokens = _judged_tokens(setting, rows)
    if value(config, "model.judge", None):
        tokens += 2 * rows * (counts.prompt + 2 * counts.response)  # in both orders
    return _score(setting, devices, rows, tokens)


def _judged_tokens(setting: Setting, rows: int) -> float:
    """Return the tokens that reward models read of rows; formulas take no time worth the name."""
    return rows * (setting.counts.response + setting.counts.prompt) if setting.judged else 0.0


def _score(setting: Setting, devices: int, rows: int, tokens: float) -> Cost:
    size = setting.size
    seconds = 2 * size.with_head * tokens / setting.rates.scoring
    weights = size.weight_bytes(setting.dtype, setting.quantized)
    memory = weights / (devices if setting.spread else 1) / GIB
    return Cost(rows, tokens, seconds / (1 if setting.spread else devices), memory, rows_bytes(rows, 0.0))
