"""Facts about the released code: what it does by accident, and what is done here."""

from pathlib import Path

import pytest
from golden import PURE, adapters, cases, check

from sipo_pl.engine.lora.adapters import interpolate, read_adapter
from sipo_pl.released.schedule import cosine_with_warmup_steps
from sipo_pl.training.schedule import cosine_with_warmup


@pytest.fixture(scope="module")
def quirks() -> dict[str, object]:
    return cases("reference_quirks")


def test_learning_rates_without_warmup(quirks: dict[str, list[float]]) -> None:
    factor = cosine_with_warmup(10, 0.0)
    rates = [5e-4 * factor(step) for step in range(10)]
    check("learning rates", rates, quirks["lr_used_per_step_10_steps_warmup_steps_0"], PURE, floor=1e-5)


def test_learning_rates_of_a_warmup_that_is_a_step_count(quirks: dict[str, list[float]]) -> None:
    factor = cosine_with_warmup_steps(10, 0.1)
    rates = [5e-4 * factor(step) for step in range(10)]
    check("learning rates", rates, quirks["lr_used_per_step_10_steps_warmup_steps_0.1"], PURE, floor=1e-5)
    assert min(cosine_with_warmup(10, 0.1)(step) for step in range(10)) > 0


def test_interpolated_adapters_keep_every_layer_and_the_folders_own_scale(quirks: dict[str, dict[str, float]]) -> None:
    read = [read_adapter(Path(folder)) for folder in adapters(["a1_0", "a1_1"])]
    joined = interpolate([one.factors for one in read], [0.4, 0.6])
    assert 2 * len(joined) == quirks["soup_adapter_without_target_modules"]["tensors_in_source"]
    scales = quirks["scaling_by_adapter"]
    assert [one.scale for one in read] == [scales["reward_model_0"], scales["reward_model_1"]]
