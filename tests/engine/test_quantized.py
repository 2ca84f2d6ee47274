"""Base models in four bits: what is computed over them, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch
from tiny import CHAT_TEMPLATE
from tiny_run import Command, make_talkative_model, write_recipe
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.data.units import read_units
from sipo_pl.engine.logprobs.cuda_graphs import AdapterLogps
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.loading import load_base
from sipo_pl.storage.manifest import Manifest
from sipo_pl.text.templates import Encoded

ROWS = [Encoded([1, *range(5, 40), 2], 12), Encoded([1, *range(5, 20), 9, 8, 7, 2], 12), Encoded([1, 30, 31, 2], 2)]
TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model in four bits, and a whole one with the same weights."""
    functional = pytest.importorskip("bitsandbytes").functional
    folder = make_talkative_model(tmp_path_factory.mktemp("quantized") / "model", chat_template=CHAT_TEMPLATE)
    small, whole = load_base(str(folder), "float32", quantize="4bit"), load_base(str(folder), "float32")
    whole.to(small.device)
    changed = 0
    for name, weight in small.named_parameters():
        if state := getattr(weight, "quant_state", None):
            own = whole.get_parameter(name)
            changed += int((functional.dequantize_4bit(weight.data, state) - own).abs().max() > 1e-4)
            own.data.copy_(functional.dequantize_4bit(weight.data, state))
    assert changed == 7 * small.config.num_hidden_layers
    return small, whole


def trained(model: PreTrainedModel) -> tuple[Tensor, list[Tensor]]:
    """Return log-probabilities under ranks in training that are not zero, and the gradients of their sum."""
    stack = LoRAStack(model, TARGETS)
    stack.train_ranks(4, 8.0, 0, TARGETS)
    generator = torch.Generator().manual_seed(1)
    for rank in stack.trained:
        rank.data += 0.05 * torch.randn(rank.shape, generator=generator).to(rank.device)
    logps = AdapterLogps(stack, False)(ROWS, model.device)
    return logps.detach(), list(torch.autograd.grad(logps.sum(), stack.trained))


def test_log_probabilities_and_gradients_are_those_of_the_same_weights_as_a_whole(
    pair: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    (found, slopes), (expected, expected_slopes) = (trained(model) for model in pair)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for slope, other in zip(slopes, expected_slopes, strict=True):
        assert other.abs().max() > 0.01
        torch.testing.assert_close(slope, other, rtol=1e-3, atol=1e-4)


def test_a_run_in_four_bits(tmp_path: Path, talkative_model: Path, command: Command) -> None:
    pytest.importorskip("bitsandbytes")
    recipe = write_recipe(tmp_path, talkative_model)
    stages = ("prepare", "align", "sample", "review", "rewrite", "score")
    said = command("run", "--config", recipe, "--set", "recipe.quantize=4bit", "--only", *stages)
    assert said.code == 0, said.err
    manifest = Manifest.read(tmp_path / "run/align-kind")
    assert manifest is not None
    assert manifest.notes["final val/loss"] < 0.6925  # from 0.6931
    assert read_units(tmp_path / "run/score")
    said = command("fit", "--config", tmp_path / "align.yaml", "--objective", "kind", "--recipe.quantize", "null")
    assert said.code == 1  # it does not go on from a fit over other weights
    assert 'was made by other settings: recipe.quantize: "4bit" there, null asked' in said.err


def test_without_the_library_it_is_refused_before_a_weight_is_read(
    tmp_path: Path, talkative_model: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path, talkative_model)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    said = command("fit", "--config", tmp_path / "align.yaml", "--objective", "kind", "--recipe.quantize", "4bit")
    assert said.code == 2
    why = "4bit needs bitsandbytes, which is not installed: pip install 'sipo_pl[quantize]'"
    assert said.err == f"sipo_pl fit: recipe.quantize: {why}\n"
