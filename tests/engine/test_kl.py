"""The divergence from the base model against softmaxes over the whole vocabulary."""

from pathlib import Path

import pytest
import torch
from tiny import make_tiny_adapter, make_tiny_model

from sipo_pl.engine.decoding.kl import kl_to_base
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.policies import Policy, PolicySet, stack_policies
from sipo_pl.method.divergences import Divergence, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.text.templates import Encoded

ROWS = [Encoded([1, 9, 8, 7, 30, 40, 50, 2], 4), Encoded([1, 9, 2], 2), Encoded([1, 5, 6, 60, 61, 2], 3)]
WEIGHTS = [(0.3, 0.7, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> PolicySet:
    folder: Path = tmp_path_factory.mktemp("kl")
    base = make_tiny_model(folder / "base", spread=0.1)
    adapters = [make_tiny_adapter(folder / f"a{seed}", base, seed) for seed in range(2)]
    return stack_policies([Policy(str(base), read_adapter(one).factors, one) for one in adapters], "float32")


def expected(policies: PolicySet, row: Encoded, weights: tuple[float, ...], divergence: Divergence) -> float:
    """Token by token, from the models' own logits."""
    stack = policies.stacks[0]
    logps = []
    for group in range(3):
        with stack.active([group]), torch.no_grad():
            logps.append(stack.model(torch.tensor([row.input_ids])).logits[0].double().log_softmax(dim=-1))
    used = [group for group, weight in enumerate(weights) if weight]
    total, said = 0.0, torch.zeros(3, dtype=torch.float64)
    for place in range(row.prompt_length - 1, len(row.input_ids) - 1):
        scores = torch.stack([logps[group][place] + said[group] for group in range(3)])
        fused = logps[used[0]][place]
        if len(used) > 1:
            w = torch.tensor([[weights[group] for group in used]])
            mixed = divergence.fuse(scores[used][:, None].float(), w, scores[2][None].float())
            fused = mixed[0].double().log_softmax(dim=-1)
        total += float((fused.exp() * (fused - logps[2][place])).sum())
        said += torch.stack([logps[group][place, row.input_ids[place + 1]] for group in range(3)])
    return total


@pytest.mark.parametrize("divergence", [ReverseKL(), ForwardKL(), JensenShannon()], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("batch_tokens", [10, 8192])
def test_it_is_the_sum_over_tokens(policies: PolicySet, divergence: Divergence, batch_tokens: int) -> None:
    found = kl_to_base(policies, 2, ROWS, WEIGHTS, divergence, batch_tokens)
    assert found[2] == 0.0  # the base itself
    wanted = [expected(policies, row, weights, divergence) for row, weights in zip(ROWS, WEIGHTS, strict=True)]
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert min(found[:2]) > 1e-3
