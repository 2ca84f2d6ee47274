"""What each fit takes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sipo_pl.run.estimate.size import ITEM_BYTES
from sipo_pl.run.estimate.stages import GIB, MEASURED_LAYERS, Cost, Setting, value

ACTIVATIONS = 11.5  # numbers of a token that a layer keeps for the backward pass, by its width; measured
TRAINED_BYTES = 16  # of a weight in training: itself, its gradient, two of the optimizer
STEP_TOKENS = 8192  # of a training forward on a GPU, at most


def pairs(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of a fit on the prepared pairs."""
    return _pairs(config, setting, devices, setting.counts.pairs)


def kept(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of a re-alignment."""
    # at most one response a conflict is kept, and is preferred over both of its pair; the adapter has the first's ranks
    conflicts = setting.counts.conflicts
    kept = min(conflicts, setting.of("sample", "model.max_rows", conflicts))
    return _pairs(config, setting, devices, 2 * kept, adapters=2)


def raco(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of a fit on the prepared pairs whose steps no CUDA graph replays."""
    return _pairs(config, setting, devices, setting.counts.pairs, graphs=False)


def sft(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of the supervised fine-tuning, which writes a whole model beside its adapter."""
    counts, size = setting.counts, setting.size
    both = value(config, "data.responses", "both") == "both"
    data = _FitData(counts.responses if both else counts.pairs, counts.prompt + counts.response)
    cost = _fit(config, setting, devices, data, _Trained.lora(config, setting))
    return replace(cost, disk=cost.disk + size.parameters * ITEM_BYTES[setting.dtype])


def reward_model(config: Mapping[str, Any], setting: Setting, devices: int) -> Cost:
    """Return the cost of a reward model: all weights are trained, in float32, on each response once an epoch."""
    counts = setting.counts
    validations = value(config, "saving.validations", 4)
    row_tokens = counts.prompt + counts.response
    data = _FitData(counts.responses, row_tokens, 2 * counts.validation * validations * row_tokens, rows_at_once=4)
    trained = _Trained(setting.size.parameters, whole=True, graphs=False)
    return _fit(config, replace(setting, dtype="float32", quantized=False), devices, data, trained)


@dataclass(frozen=True)
class _FitData:
    """The rows of a fit.

    Args:
        rows: of an epoch
        row_tokens: of each
        checked: tokens of forwards without a backward pass
        rows_at_once: rows of a micro-batch, where the config does not say
    """

    rows: int
    row_tokens: float
    checked: float = 0.0
    rows_at_once: int = 1


@dataclass(frozen=True)
class _Trained:
    """The weights of a fit.

    Args:
        weights: how many are in training
        whole: they are the model's own, which then have gradients too
        graphs: a CUDA graph replays its steps
        adapters: that are written, in sizes of the one in training
    """

    weights: int
    whole: bool = False
    graphs: bool = True
    adapters: int = 1

    @classmethod
    def lora(cls, config: Mapping[str, Any], setting: Setting, *, graphs: bool = True, adapters: int = 1) -> "_Trained":
        """Return the weights of the adapter that a config asks for."""
        lora = config.get("model", {}).get("lora", {})
        targets = lora.get("targets", ["q_proj", "k_proj", "v_proj", "o_proj"])
        return cls(setting.size.adapter(lora.get("r", 64), targets), graphs=graphs, adapters=adapters)


def _pairs(
    config: Mapping[str, Any], setting: Setting, devices: int, rows: int, *, graphs: bool = True, adapters: int = 1
) -> Cost:
    counts = setting.counts
    rows, row_tokens = min(rows, value(config, "data.max_pairs", rows)), counts.prompt + 2 * counts.response
    validations = value(config, "saving.validations", 4)
    validation = min(counts.validation, value(config, "data.max_validation_pairs", counts.validation))
    checked = (rows + validation * (1 + validations)) * row_tokens  # the reference once, and validations
    trained = _Trained.lora(config, setting, graphs=graphs, adapters=adapters)
    return _fit(config, setting, devices, _FitData(rows, row_tokens, checked), trained)


def _fit(config: Mapping[str, Any], setting: Setting, devices: int, data: _FitData, trained: _Trained) -> Cost:
    size, rates = setting.size, setting.rates
    epochs = value(config, "trainer.max_epochs", 3)
    micro = value(config, "data.micro_batch_size", data.rows_at_once)
    tokens = data.rows * data.row_tokens
    forwards = data.rows * epochs / micro
    strategy = str(value(config, "trainer.strategy", ""))
    replayed = (
        trained.graphs
        and value(config, "model.forwards.graphs", True)
        and setting.dtype != "float32"
        and not value(config, "model.forwards.checkpointing", False)
        and not (value(config, "model.lora.dropout", 0) or setting.quantized or "stage_3" in strategy)
    )
    # forward and the states' gradients, and the weights' own gradients where they are in training
    forward = (6 if trained.whole else 4) * size.with_head * micro * data.row_tokens / rates.training
    forward += rates.forward_seconds * size.layers / MEASURED_LAYERS
    if not replayed:
        forward = max(forward, rates.launch_seconds * size.layers / MEASURED_LAYERS)
    seconds = forwards * forward + 2 * size.with_head * data.checked / rates.scoring
    parts = devices if "stage_3" in strategy else 1
    states = TRAINED_BYTES / (devices if "deepspeed" in strategy else 1)
    at_once = min(STEP_TOKENS, micro * data.row_tokens)
    frozen = 0.0 if trained.whole else size.weight_bytes(setting.dtype, setting.quantized)
    memory = (
        frozen / parts
        + trained.weights * states
        + at_once * ACTIVATIONS * size.layers * size.hidden * ITEM_BYTES[setting.dtype]
    )
    # what is written, and with the optimizer's two states the best checkpoint, the newest and the one before
    disk = 4.0 * trained.weights * (trained.adapters + 3 * 3)
    return Cost(data.rows, (tokens * epochs) + data.checked, seconds / devices, memory / GIB, disk)
