"""What each stage takes that generates text."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sipo_pl.run.estimate.size import ITEM_BYTES
from sipo_pl.run.estimate.stages import GIB, MEASURED_LAYERS, Cost, Setting, rows_bytes, value

ROWS_AT_ONCE = 128  # in decoding, where the config leaves it to the memory
REVIEW_TOKENS, REVIEW_PROMPT, REWRITE_PROMPT = 150, 400, 900  # of one-shot prompts, beside question and answer


def sample(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of sampling candidates."""
    setting = replace(setting, configs={**setting.configs, "sample": config})
    return _candidates(config, setting, devices, _Texts(setting.counts.response, setting.objectives))


def review(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of reviews, which one policy writes."""
    texts = _Texts(REVIEW_TOKENS, 1, REVIEW_PROMPT + setting.counts.response)
    return _candidates(config, setting, devices, texts)


def rewrite(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of rewriting candidates."""
    counts = setting.counts
    texts = _Texts(counts.response, setting.objectives, REWRITE_PROMPT + counts.response)
    return _candidates(config, setting, devices, texts)


def evaluate(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of answers to the test prompts, at each weight and by the base model."""
    each = setting.evaluated + bool(value(config, "model.base", True))
    return _answers("evaluate", config, setting, devices, each)


def answer(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of the answers of all compared methods; what several have in common answers once."""
    each = setting.mixes * value(config, "model.samples_per_weight", 1)
    return _answers("answer", config, setting, devices, each)


@dataclass(frozen=True)
class _Texts:
    """The texts that are generated.

    Args:
        tokens: of each, where the config does not cut it
        policies: that are fused
        extra: tokens of its prompt beside those of the question, which is then read anew for each text
    """

    tokens: float
    policies: int
    extra: float = 0.0


def _answers(stage: str, config: Mapping[str, Any], setting: Setting, devices: int, each: int) -> Cost:
    setting = replace(setting, configs={**setting.configs, stage: config})
    texts = _Texts(setting.counts.response, setting.objectives)
    return _decode(config, setting, devices, setting.test_prompts(stage), each, texts)


def _candidates(config: Mapping[str, Any], setting: Setting, devices: int, texts: _Texts) -> Cost:
    prompts = setting.sampled_prompts
    return _decode(config, setting, devices, prompts, setting.candidates // max(1, prompts), texts)


def _decode(config: Mapping[str, Any], setting: Setting, devices: int, prompts: int, each: int, texts: _Texts) -> Cost:
    counts, size, rates, extra = setting.counts, setting.size, setting.rates, texts.extra
    rows = prompts * each
    made = min(texts.tokens, value(config, "model.decoding.max_new_tokens", texts.tokens))
    read = rows * (counts.response + REVIEW_TOKENS) if extra else prompts * counts.prompt  # headers are read once
    at_once = max(1, min(value(config, "model.decoding.batch_rows", ROWS_AT_ONCE) or ROWS_AT_ONCE, rows))
    weights = size.weight_bytes(setting.dtype, setting.quantized)
    cached = texts.policies * size.cached * ITEM_BYTES[setting.dtype]  # of a token
    held = at_once * (counts.prompt + extra + made)
    step = (weights + at_once * (counts.prompt + extra + made / 2) * cached) / rates.bandwidth
    # a CPU takes longer to multiply than to read
    step = max(step, 2 * size.with_head * texts.policies * at_once / (rates.decoding or rates.scoring))
    step = max(step, rates.step_seconds * size.layers / MEASURED_LAYERS)
    seconds = rows * made / at_once * step + 2 * size.linear * texts.policies * read / rates.scoring
    parts = devices if setting.spread else 1
    memory = (weights + held * cached) / parts / GIB
    return Cost(rows, rows * made, seconds / (1 if setting.spread else devices), memory, rows_bytes(rows, made))
