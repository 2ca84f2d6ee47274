from pathlib import Path

import pytest
import torch
from tiny import make_tiny_adapter, make_tiny_model

from sipo_pl.data.templates import Encoded
from sipo_pl.policies.adapters import interpolate, read_adapter
from sipo_pl.policies.loading import load_base
from sipo_pl.policies.logprobs import collate, response_logps
from sipo_pl.policies.lora import LoRAStack
from sipo_pl.policies.policies import BASE
from sipo_pl.rewards.implicit import implicit_rewards

ROWS = [Encoded([1, *range(10, 10 + length), 2], 3) for length in (4, 15, 2, 9, 9, 3, 30)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model", spread=0.2)


@pytest.fixture(scope="module")
def stack(base: Path) -> LoRAStack:
    policies = [read_adapter(make_tiny_adapter(base.parent / str(seed), base, seed)).factors for seed in (1, 2)]
    stack = LoRAStack(load_base(str(base), "float32"), sorted(policies[0]))
    stack.stack([*policies, interpolate(policies, (0.2, 0.8)), BASE])
    return stack


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_rewards_are_beta_times_the_log_ratio_to_the_base(stack: LoRAStack, base: Path, batch_tokens: int) -> None:
    told: list[tuple[int, int]] = []
    found = implicit_rewards(stack, 3, ROWS, 0.1, batch_tokens, lambda *counts: told.append(counts))
    reference = load_base(str(base), "float32")
    with torch.no_grad():
        ref = torch.cat([response_logps(reference, collate([row])) for row in ROWS])
        for k in range(3):
            with stack.active([k]):
                logps = torch.cat([response_logps(stack.model, collate([row])) for row in ROWS])
            assert (logps - ref).abs().max() > 0.5
            torch.testing.assert_close(found[k], 0.1 * (logps - ref), rtol=1e-4, atol=1e-4)
    assert sum(rows for rows, _ in told) == len(ROWS)
    assert sum(tokens for _, tokens in told) == 4 * sum(len(row.input_ids) for row in ROWS)


def test_no_rows_have_no_rewards(stack: LoRAStack) -> None:
    assert implicit_rewards(stack, 3, [], 0.1, 100).shape == (3, 0)
