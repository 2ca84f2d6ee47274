"""Merge: an adapter into its base model, or whole models into their average, for other tools."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.method.weights import parse_point

LOG = logging.getLogger("sipo_pl")


def merge(
    output: str,
    adapter: str | None = None,
    base_model: str | None = None,
    models: list[str] | None = None,
    weights: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    overwrite: bool = False,
) -> None:
    """Write an adapter merged into its base model, or the weighted average of whole models.

    Args:
        output: folder of the result: weights as safetensors, tokenizer, chat template, generation config
        adapter: PEFT folder
        base_model: folder or hub name of its base; the one that the adapter names where not given
        models: whole models to be averaged instead
        weights: their weights, such as 0.5,0.5, which sum to one
        dtype: dtype of the written weights; the arithmetic is float32
        overwrite: replace what the output folder holds
    """
    folder = Path(output)
    _check_options(adapter, base_model, models, weights)
    _check_output(folder, [name for name in (adapter, base_model, *(models or [])) if name], overwrite=overwrite)
    from sipo_pl.engine.lora.adapters import read_adapter
    from sipo_pl.engine.models.merge import average_models, merge_adapter
    from sipo_pl.messages.logs import quiet_libraries

    quiet_libraries()
    if models is not None:
        assert weights is not None
        average_models(models, _weights(weights, models), folder, dtype)
        LOG.info("merge: the average of %s at %s in %s", ", ".join(models), weights, folder)
        return
    assert adapter is not None
    base = base_model or read_adapter(Path(adapter)).base
    if base is None:
        raise UserError(f"{adapter}: names no base model; give --base_model")
    merge_adapter(base, Path(adapter), folder, dtype)
    LOG.info("merge: written to %s", folder)


def _check_options(adapter: str | None, base_model: str | None, models: list[str] | None, weights: str | None) -> None:
    if (adapter is None) == (models is None):
        raise UsageError("give either --adapter or --models")
    if models is None:
        if weights is not None:
            raise UsageError("--weights belongs to --models")
        return
    if base_model is not None:
        raise UsageError("--base_model belongs to --adapter; --models are whole models")
    if weights is None:
        raise UsageError("--models: give --weights too, such as 0.5,0.5")
    if sum(weight > 0 for weight in _weights(weights, models)) < 2:
        raise UsageError(f"--weights {weights}: at least two models need a weight above zero")


def _weights(text: str, models: Sequence[str]) -> tuple[float, ...]:
    if (count := len(text.split(","))) != len(models):
        raise UsageError(f"--weights {text}: {count} numbers for {len(models)} models")
    return parse_point(text, [f"model {index}" for index in range(len(models))])


def _check_output(folder: Path, sources: Sequence[str], *, overwrite: bool) -> None:
    if any(Path(source).resolve() == folder.resolve() for source in sources):
        raise UsageError(f"--output {folder}: is what is read")
    if not folder.exists():
        return
    if not overwrite:
        raise UserError(f"{folder}: is there already (--overwrite replaces it)")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: not a model's folder, so it is not overwritten; remove it or choose another")
