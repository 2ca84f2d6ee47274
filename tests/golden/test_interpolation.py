"""Adapters interpolated in weight space, and an adapter merged into its base."""

from pathlib import Path
from typing import Any

import pytest
from golden import MODEL, PURE, adapters, cases, check
from torch import Tensor

from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.models.loading import load_base
from sipo_pl.use.functions import interpolate, next_token_logits

NAMES = ["soup_merge_a1", "soup_merge_a16"]


def summary(tensor: Tensor) -> dict[str, Any]:
    wide = tensor.double()
    return {"sum": float(wide.sum()), "abs_sum": float(wide.abs().sum()), "first8": tensor.flatten()[:8].tolist()}


@pytest.mark.parametrize("name", NAMES)
def test_interpolated_tensors(name: str) -> None:
    golden = cases(name)
    assert [len(tensors) for tensors in golden["combined"].values()] == [16] * 4
    for weight, tensors in golden["combined"].items():
        found = interpolate(adapters(golden["adapters"]), [float(weight), 1 - float(weight)])
        assert set(found) == set(tensors)
        for key, expected in tensors.items():
            assert list(found[key].shape) == expected["shape"]
            for what, value in summary(found[key]).items():
                check("interpolated adapters", value, expected[what], PURE)


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_interpolated_adapters(name: str) -> None:
    golden = cases(name)
    points = [(weight, 1 - weight) for weight in (0.2, 0.4, 0.6, 0.8)]
    found = next_token_logits(MODEL, adapters(golden["adapters"]), golden["prompt"], points).tolist()
    names = ["adapter_0", "adapter_1", "soup_0.2", "soup_0.4", "soup_0.6", "soup_0.8"]
    check("logits", found[:6], [golden["last_logits"][one] for one in names])
    check("logits", found[0], golden["last_logits"]["merge_and_unload_adapter_0"])


@pytest.mark.parametrize("name", NAMES)
def test_merged_weights(name: str) -> None:
    """Merged in float32, W + B A is the released merge; the project's folded scale is that of the folder."""
    golden = cases(name)
    base = load_base(MODEL, "float32")
    factors = read_adapter(Path(adapters(golden["adapters"])[0])).factors
    assert len(golden["merged_adapter_0_weights"]) == 8
    for key, expected in golden["merged_adapter_0_weights"].items():
        module = key.removesuffix(".weight")
        a, b = factors[module]
        merged = summary(base.get_submodule(module).weight + b @ a)
        check("merged weights", [merged["sum"], merged["first8"]], [expected["sum"], expected["first8"]], PURE)
