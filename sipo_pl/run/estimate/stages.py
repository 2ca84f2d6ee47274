"""What each stage takes, as arithmetic on counts, sizes, settings and rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sipo_pl.run.estimate.counts import Counts
from sipo_pl.run.estimate.rates import Rates
from sipo_pl.run.estimate.size import ITEM_BYTES, ModelSize

GIB = 2**30
MEASURED_LAYERS = 32  # of the model that fixed costs were measured with
ACTIVATIONS = 11.5  # numbers of a token that a layer keeps for the backward pass, by its width; measured
TRAINED_BYTES = 16  # of a weight in training: itself, its gradient, two of the optimizer
STEP_TOKENS = 8192  # of a training forward on a GPU, at most
ROWS_AT_ONCE = 128  # in decoding, where the config leaves it to the memory
REVIEW_TOKENS, REVIEW_PROMPT, REWRITE_PROMPT = 150, 400, 900  # of one-shot prompts, beside question and answer
ROW_BYTES, TOKEN_BYTES = 300, 4.5  # of a row on disk


@dataclass(frozen=True)
class Cost:
    """What a stage takes.

    Args:
        rows: rows in training, an epoch, or rows that are made or scored
        tokens: that pass through the model; in decoding, those that are made
        seconds: on all its devices together
        memory: GiB on each device
        disk: bytes
    """

    rows: int
    tokens: float
    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True)
class Setting:
    """What stages share.

    Args:
        counts: of the data
        size: of the base model
        rates: of a device
        dtype: of the base model
        quantized: its weights are in four bits
        objectives: how many
        sampled: weights at which candidates are sampled
        evaluated: weights at which the front is measured
        rewrites: whether candidates are rewritten
        spread: a prediction has its model on all devices at once
    """

    counts: Counts
    size: ModelSize
    rates: Rates
    dtype: str
    quantized: bool
    objectives: int
    sampled: int
    evaluated: int
    rewrites: bool
    spread: bool = False


def value(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """Return the value of a dotted key of a stage's config; the default where it has none."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return default if found is None else found


def cost_of(stage: str, config: Mapping[str, Any], setting: Setting, devices: int = 1) -> Cost | None:
    """Return what a stage takes; None where that is seconds.

    Args:
        stage: the name of its config, such as align.
        config: its settings.
        setting: what stages share.
        devices: that share it.
    """
    if stage in ("sft", "align", "align_long", "realign", "modpo", "dpo_lw", "raco", "consistency"):
        return _fit(stage, config, setting, devices)
    if stage in ("sample", "review", "rewrite", "evaluate", "answer"):
        return _decode(stage, config, setting, devices)
    if stage in ("score", "measure"):
        return _score(stage, setting, devices)
    return None


def _fit(stage: str, config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    counts, size, rates = setting.counts, setting.size, setting.rates
    epochs, micro = value(config, "trainer.max_epochs", 3), value(config, "data.micro_batch_size", 1)
    if stage == "sft":
        both = value(config, "data.responses", "both") == "both"
        rows, row_tokens = counts.responses if both else counts.pairs, counts.prompt + counts.response
        checks = 0.0
    else:
        # at most one response a conflict is kept, and is preferred over both of its pair
        rows = counts.pairs if stage != "realign" else 2 * counts.conflicts
        rows, row_tokens = min(rows, value(config, "data.max_pairs", rows)), counts.prompt + 2 * counts.response
        validations = value(config, "saving.validations", 4)
        validation = min(counts.validation, value(config, "data.max_validation_pairs", counts.validation))
        checks = (rows + validation * (1 + validations)) * row_tokens  # the reference once, and validations
    tokens = rows * row_tokens
    forwards = rows * epochs / micro
    lora = config.get("model", {}).get("lora", {})
    targets = lora.get("targets", ["q_proj", "k_proj", "v_proj", "o_proj"])
    trained = size.adapter(lora.get("r", 64), targets)
    strategy = str(value(config, "trainer.strategy", ""))
    replayed = (
        value(config, "model.forwards.graphs", True)
        and setting.dtype != "float32"
        and not value(config, "model.forwards.checkpointing", False)
        and not (lora.get("dropout") or setting.quantized or stage == "raco" or "stage_3" in strategy)
    )
    forward = 4 * size.linear * micro * row_tokens / rates.training
    forward += rates.forward_seconds * size.layers / MEASURED_LAYERS
    if not replayed:
        forward = max(forward, rates.launch_seconds * size.layers / MEASURED_LAYERS)
    seconds = forwards * forward + 2 * size.linear * checks / rates.scoring
    parts = devices if "stage_3" in strategy else 1
    states = TRAINED_BYTES / (devices if "deepspeed" in strategy else 1)
    at_once = min(STEP_TOKENS, micro * row_tokens)
    memory = (
        size.weight_bytes(setting.dtype, setting.quantized) / parts
        + trained * states
        + at_once * ACTIVATIONS * size.layers * size.hidden * ITEM_BYTES[setting.dtype]
    )
    # the adapter, and with the optimizer's two states the best checkpoint, the newest and the one before
    disk = 4.0 * trained * (1 + 3 * 3 + (stage == "realign"))
    if stage == "sft":
        disk += size.parameters * ITEM_BYTES[setting.dtype]
    return Cost(rows, (tokens * epochs) + checks, seconds / devices, memory / GIB, disk)


def _decode(stage: str, config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    counts, size, rates = setting.counts, setting.size, setting.rates
    prompts = counts.test if stage in ("evaluate", "answer") else counts.conflicts
    prompts = min(prompts, value(config, "model.max_rows", prompts))
    each = setting.sampled * value(config, "model.samples_per_weight", 1)
    if stage in ("evaluate", "answer"):
        each = setting.evaluated + bool(value(config, "model.base", stage == "evaluate"))
    rows, policies = prompts * each, 1 if stage == "review" else setting.objectives
    made = {"review": float(REVIEW_TOKENS)}.get(stage, counts.response)
    made = min(made, value(config, "model.decoding.max_new_tokens", made))
    extra = {"review": REVIEW_PROMPT + counts.response, "rewrite": REWRITE_PROMPT + counts.response}.get(stage, 0.0)
    read = rows * (counts.response + REVIEW_TOKENS) if extra else prompts * counts.prompt  # headers are read once
    at_once = max(1, min(value(config, "model.decoding.batch_rows", ROWS_AT_ONCE) or ROWS_AT_ONCE, rows))
    weights = size.weight_bytes(setting.dtype, setting.quantized)
    cached = policies * size.cached * ITEM_BYTES[setting.dtype]  # of a token
    held = at_once * (counts.prompt + extra + made)
    step = (weights + at_once * (counts.prompt + extra + made / 2) * cached) / rates.bandwidth
    step = max(step, rates.step_seconds * size.layers / MEASURED_LAYERS)
    seconds = rows * made / at_once * step + 2 * size.linear * policies * read / rates.scoring
    parts = devices if setting.spread else 1
    memory = (weights + held * cached) / parts / GIB
    return Cost(rows, rows * made, seconds / (1 if setting.spread else devices), memory, _rows_bytes(rows, made))


def _score(stage: str, setting: Setting, devices: int) -> Cost:
    counts, size = setting.counts, setting.size
    candidates = counts.conflicts * setting.sampled * (2 if setting.rewrites else 1)
    rows = candidates + 2 * counts.conflicts
    groups = setting.objectives + setting.sampled + 1  # policies, interpolations, base
    if stage == "measure":
        rows, groups = counts.test * (setting.evaluated + 1), 1
    tokens = rows * (counts.response + counts.prompt)
    if stage == "score":  # prompts are shared by what answers them
        tokens = rows * counts.response + counts.conflicts * counts.prompt
    seconds = 2 * size.linear * groups * tokens / setting.rates.scoring
    weights = size.weight_bytes(setting.dtype, setting.quantized)
    memory = weights / (devices if setting.spread else 1) / GIB
    return Cost(rows, tokens * groups, seconds / (1 if setting.spread else devices), memory, _rows_bytes(rows, 0.0))


def _rows_bytes(rows: int, tokens: float) -> float:
    return rows * (ROW_BYTES + TOKEN_BYTES * tokens)
