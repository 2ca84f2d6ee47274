import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from sipo_pl.released.schedule import cosine_with_warmup_steps
from sipo_pl.training.schedule import cosine_with_warmup


@pytest.mark.parametrize("total", [1, 2, 7, 40])
@pytest.mark.parametrize("warmup", [0.1, 0, 1, 2.5, 5])
def test_warm_up_by_count_is_that_of_transformers(total: int, warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, warmup, total)  # type: ignore[arg-type]
    ours = cosine_with_warmup_steps(total, warmup)
    for step in range(total):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_a_tenth_of_a_step_warms_up_none_but_the_first() -> None:
    factor = cosine_with_warmup_steps(10, 0.1)
    assert factor(0) == 0.0
    assert factor(1) == pytest.approx(0.979746, abs=1e-6)  # 0.5 (1 + cos(pi * 0.9 / 9.9))


def test_a_share_of_the_steps_warms_up_from_above_zero() -> None:
    factor = cosine_with_warmup(20, 0.1)
    assert [factor(step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factor(20) == pytest.approx(0.0)
