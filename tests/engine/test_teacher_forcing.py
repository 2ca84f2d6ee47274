"""The fused distribution along given responses is the one that decoding draws from, and all measures read it."""

import pytest
import torch
from fused import DIVERGENCES

from sipo_pl.engine.decoding import teacher_forcing
from sipo_pl.engine.decoding.distance import distances
from sipo_pl.engine.decoding.fused_rows import FusedRows, Fusion
from sipo_pl.engine.decoding.generation import fused_groups
from sipo_pl.engine.decoding.kl import kl_to_base
from sipo_pl.engine.decoding.options import Request
from sipo_pl.engine.decoding.slot_sizes import SlotSizes
from sipo_pl.engine.decoding.teacher_forcing import forced_tokens
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.text.templates import Encoded

PROMPT, ANSWERS = (5, 6, 7, 8), ([30, 40, 50, 60, 70, 2], [90, 80, 2])
ROWS = [Encoded([*PROMPT, *answer], len(PROMPT)) for answer in ANSWERS]
POINTS = [(0.6, 0.4), (0.1, 0.9)]
BASE = 2


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("positions", [2, 256])
@torch.inference_mode()
def test_it_is_what_decoding_sees(
    policies: PolicySet, name: str, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_forcing, "POSITIONS", positions)
    groups, reference = fused_groups(policies, (0, 1), DIVERGENCES[name])
    with policies.active(groups) as forward:
        fusion = Fusion(forward, DIVERGENCES[name], reference)
        tokens = list(forced_tokens(fusion, ROWS, torch.tensor(POINTS)))
        assert torch.cat([one.rows for one in tokens]).tolist() == [0] * 6 + [1] * 3
        fused = torch.cat([one.fused for one in tokens]).split([6, 3])
        for answer, point, expected in zip(ANSWERS, POINTS, fused, strict=True):
            weights = (*point, *[0.0] * (len(groups) - 2))
            rows = FusedRows(fusion, SlotSizes.of([PROMPT], 1, len(answer)))
            rows.admit([0], [Request("", PROMPT, weights)])
            for token, logps in zip(answer, expected, strict=True):
                torch.testing.assert_close(rows.scores()[0].log_softmax(-1), logps, rtol=1e-4, atol=1e-4)
                rows.advance(torch.tensor([token]))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_sum_of_a_response_and_the_mean_of_its_tokens_agree(policies: PolicySet, name: str) -> None:
    for row in ROWS:
        (total,) = kl_to_base(policies, BASE, [row], [(0.6, 0.4, 0.0)], DIVERGENCES[name], 8192)
        (mean,) = distances(policies, (0.6, 0.4), DIVERGENCES[name], [BASE], [row])
        assert total == pytest.approx(mean.kl * mean.tokens, rel=1e-4)
        assert total > 0.01
