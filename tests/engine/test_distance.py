"""Distances from fusion, beside those of whole texts in float64 through plain peft."""

import pytest
import torch
from fused import DIVERGENCES, Model, cumulative, fused_scores

from sipo_pl.engine.decoding.distance import distances
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.text.templates import Encoded

PROMPT, ANSWERS = [5, 6, 7, 8], ([30, 40, 50, 60, 70], [90, 80])
WEIGHTS = (0.6, 0.4)
BASE = 2


@pytest.mark.parametrize("name", DIVERGENCES)
def test_kl_and_agreement_follow_the_definition(policies: PolicySet, models: list[Model], name: str) -> None:
    scores = fused_scores(models[:2], WEIGHTS, name, models[BASE], PROMPT)
    kl, agree = torch.zeros(3, dtype=torch.float64), torch.zeros(3)
    for answer in ANSWERS:
        for place in range(len(answer)):
            fused = scores(answer[:place]).log_softmax(-1)
            for index, model in enumerate(models):
                theirs = cumulative(model, PROMPT, answer[:place]).log_softmax(-1)
                kl[index] += (fused.exp() * (fused - theirs)).sum()
                agree[index] += fused.argmax() == theirs.argmax()
    rows = [Encoded([*PROMPT, *answer], len(PROMPT)) for answer in ANSWERS]
    found = distances(policies, WEIGHTS, DIVERGENCES[name], [0, 1, BASE], rows)
    assert [one.tokens for one in found] == [7, 7, 7]
    assert [one.agreement for one in found] == pytest.approx((agree / 7).tolist())
    assert [one.kl for one in found] == pytest.approx((kl / 7).tolist(), rel=1e-3, abs=1e-5)
    assert min(one.kl for one in found) > 0.01


def test_a_policy_fused_with_nothing_is_no_distance_away(policies: PolicySet) -> None:
    rows = [Encoded([*PROMPT, *answer], len(PROMPT)) for answer in ANSWERS]
    (found,) = distances(policies, (1.0, 0.0), DIVERGENCES["reverse KL"], [0], rows)
    assert (found.kl, found.agreement) == (pytest.approx(0, abs=1e-6), 1.0)
