"""Implicit rewards of given texts, under adapters and interpolated adapters."""

import pytest
from golden import MODEL, adapters, cases, check

from sipo_pl.use.functions import implicit_rewards, tokenize


@pytest.mark.parametrize("name", ["implicit_rewards_a1", "implicit_rewards_a16"])
def test_implicit_rewards(name: str) -> None:
    golden = cases(name)
    rows = golden["rows"]
    assert (len(rows), len(golden["reward_models"])) == (20, 6)
    found = implicit_rewards(
        MODEL,
        adapters(golden["adapters"]),
        [row["raw_prompt"] for row in rows],
        [row["response"] for row in rows],
        beta=golden["beta"],
        soup_weights=[(weight, 1 - weight) for weight in golden["soup_weights"]],
        prompt_template=golden["prompt_template"],
    )
    check("log-probabilities", [one.logp for one in found], [row["logp"] for row in rows])
    check("log-probabilities", [one.ref_logp for one in found], [row["ref_logp"] for row in rows])
    rewards = [one.reward for one in found]
    check("implicit rewards", rewards, [row["reward"] for row in rows])
    by_model = list(zip(*rewards[:6], strict=True))
    check("implicit rewards", by_model, golden["batched_first6"])


@pytest.mark.parametrize("name", ["implicit_rewards_a1", "implicit_rewards_a16"])
def test_what_is_scored_is_the_response_and_its_end(name: str) -> None:
    golden = cases(name)
    for row in golden["rows"]:
        found = tokenize(MODEL, row["raw_prompt"], row["response"], golden["prompt_template"])
        assert (found.input_ids, found.labels) == (row["input_ids"], row["labels"])


@pytest.mark.parametrize("name", ["implicit_rewards_a1", "implicit_rewards_a16"])
def test_the_mean_over_response_tokens(name: str) -> None:
    """The released scorer can average too; its mean is over the response and EOS."""
    golden = cases(name)
    rows = golden["rows"][:8]
    found = implicit_rewards(
        MODEL,
        adapters(golden["adapters"][:1]),
        [row["raw_prompt"] for row in rows],
        [row["response"] for row in rows],
        beta=golden["beta"],
    )
    lengths = [sum(label != -100 for label in row["labels"]) for row in rows]
    means = [one.reward[0] / length for one, length in zip(found, lengths, strict=True)]
    check("implicit rewards", means, golden["average_log_prob_first8_adapter0"])
