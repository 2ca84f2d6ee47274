"""Models as plain transformers folders: a base with an adapter merged into it, and averages of whole models.

All arithmetic is float32; the result is rounded once, to the dtype that it is written in.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from sipo_pl.engine.logprobs.response_logprobs import gaps
from sipo_pl.engine.lora.adapters import Factors, check_fit, read_adapter
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.loading import load_base
from sipo_pl.engine.models.made_over import check_files, difference
from sipo_pl.messages.errors import UserError
from sipo_pl.storage.files import atomic_path
from sipo_pl.storage.model_hashes import resolve_base_model
from sipo_pl.text.tokenizers import load_tokenizer

log = logging.getLogger("sipo_pl")

Dtype = Literal["float32", "bfloat16"]
PROBES, PROBE_LENGTH, PROBE_SEED = 4, 32, 0  # token sequences on which the drift of a merge is measured


@dataclass(frozen=True)
class Drift:
    """What a merge does to a model.

    Args:
        largest: largest |logit difference| between base + adapter and the merged model, on fixed token sequences
        mean: mean of it
        change: norm of the change of the merged weights over their norm
    """

    largest: float
    mean: float
    change: float

    def __str__(self) -> str:
        return (
            f"logits differ from base + adapter by at most {self.largest:.3g} (mean {self.mean:.3g}); "
            f"the adapted weights changed by {self.change:.3g} of their norm"
        )


def merge(model: PreTrainedModel, factors: Factors, dtype: Dtype) -> Drift:
    """Merge an adapter into a model in place: W + B A in float32, then rounded to `dtype`.

    Args:
        model: in float32, and it stays so; its weights are those that `dtype` can hold afterwards.
        factors: the adapter, which fits the model.
        dtype: dtype that the model is going to have.

    Raises:
        UserError: the result would be the base again, or the adapter adapts an embedding that the head shares.
    """
    embedding = model.get_input_embeddings().weight
    stack = LoRAStack(model, sorted(factors))
    if tied := [name for name, layer in stack.layers.items() if layer.base.weight is embedding]:
        raise UserError(f"{tied[0]!r} shares its weight with the embedding, so that nothing can be merged into it")
    stack.stack([factors])
    probes = _probes(model)
    with torch.no_grad():
        expected = _logits(model, probes)
        before = [_rounded(layer.base.weight, dtype).clone() for layer in stack.layers.values()]
        stack.merge()
        for parameter in model.parameters():
            parameter.copy_(_rounded(parameter, dtype))
        after = [layer.base.weight for layer in stack.layers.values()]
        changes = torch.stack([(new - old).norm() for new, old in zip(after, before, strict=True)])
        if not changes.any():
            raise UserError(f"merged in {dtype}, the model is its base again: the adapter is empty or too small for it")
        norms = torch.stack([weight.norm() for weight in before])
        gap = gaps(_logits(model, probes), expected)
    return Drift(float(gap.max()), float(gap.mean()), float(changes.norm() / norms.norm()))


def merge_adapter(base_model: str, adapter: Path, output: Path, dtype: Dtype) -> Drift:
    """Merge a PEFT adapter into its base model and write the result as a transformers folder, atomically.

    Args:
        base_model: folder or hub name.
        adapter: PEFT folder.
        output: folder to be written.
        dtype: dtype of the written weights.

    Raises:
        UserError: an adapter that does not fit, or what `merge` refuses.
    """
    factors = read_adapter(adapter).factors
    check_files(adapter)
    if how := difference(adapter, base_model):  # perhaps the same one, written by other software
        log.warning("%s: was made over another model than %r is: %s", adapter, base_model, how)
    model = load_base(base_model, "float32")
    check_fit(adapter, factors, model)
    drift = merge(model, factors, dtype)
    write_model(model, output, dtype, like=base_model)
    log.info("%s merged into %s in %s: %s", adapter, base_model, dtype, drift)
    return drift


def average_models(models: Sequence[str], weights: Sequence[float], output: Path, dtype: Dtype) -> None:
    """Write the weighted average of whole models (the soup of arXiv 2306.04488), with the first one's tokenizer.

    Args:
        models: folders or hub names of one architecture.
        weights: one for each model.
        output: folder to be written.
        dtype: dtype of the written weights.

    Raises:
        UserError: models of different layers or shapes, or an average that equals its first model.
    """
    model = load_base(models[0], "float32")
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    total = {name: weights[0] * tensor for name, tensor in first.items()}
    for name, weight in zip(models[1:], weights[1:], strict=True):
        other = load_base(name, "float32").state_dict()
        _check_same_architecture(models[0], first, name, other)
        for key in total:
            total[key] += weight * other[key]
    rounded = {key: _rounded(tensor, dtype) for key, tensor in total.items()}
    if all(torch.equal(tensor, _rounded(first[key], dtype)) for key, tensor in rounded.items()):
        raise UserError(f"the average of {', '.join(models)} is {models[0]} again: the others are equal to it")
    model.load_state_dict(rounded)
    write_model(model, output, dtype, like=models[0])


def write_model(model: PreTrainedModel, output: Path, dtype: Dtype, *, like: str) -> None:
    """Write a model as a transformers folder, atomically, with tokenizer and generation config of the model `like`."""
    tokenizer = load_tokenizer(like)
    generation = cached_file(
        resolve_base_model(like), GENERATION_CONFIG_NAME, _raise_exceptions_for_missing_entries=False
    )
    model.generation_config = GenerationConfig.from_model_config(model.config)
    with atomic_path(output) as aside:
        model.to(getattr(torch, dtype)).save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        if generation is not None:
            shutil.copyfile(generation, aside / GENERATION_CONFIG_NAME)


def _check_same_architecture(first: str, there: Mapping[str, Tensor], name: str, here: Mapping[str, Tensor]) -> None:
    shapes, others = ({key: tuple(t.shape) for key, t in tensors.items()} for tensors in (there, here))
    for key in sorted(shapes.keys() | others.keys()):
        if shapes.get(key) != others.get(key):
            raise UserError(
                f"{name}: {key!r} is {_shape(others.get(key))}, in {first} {_shape(shapes.get(key))}: "
                "only models of one architecture can be averaged"
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))


def _rounded(tensor: Tensor, dtype: Dtype) -> Tensor:
    return tensor.detach().to(getattr(torch, dtype)).float()


def _probes(model: PreTrainedModel) -> Tensor:
    generator = torch.Generator().manual_seed(PROBE_SEED)
    vocabulary = model.config.get_text_config().vocab_size
    return torch.randint(vocabulary, (PROBES, PROBE_LENGTH), generator=generator).to(model.device)


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()
