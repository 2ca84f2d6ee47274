from pathlib import Path

import pytest
import torch
from tiny import make_tiny_tokenizer
from tiny_rewards import ROWS, change_config, last_state, make_beaver, read_tensors, rewrite_tensors

from sipo_pl.messages.errors import UserError
from sipo_pl.rewards.beaver import BeaverCost, BeaverReward

FRAME = "BEGINNING OF CONVERSATION: USER: {} ASSISTANT:{}"
TEXTS = [FRAME.format(p, r) for p, r in (("Why?", " Because."), ("How many {response}?", ROWS[1].response))]
TEXTS += [FRAME.format("Über", ""), FRAME.format("Why?", " No.")]


def loaded(kind: type[BeaverReward], folder: Path, **settings: object) -> BeaverReward:
    made = kind(str(folder), **{"device": "cpu", "dtype": "float32", **settings})  # type: ignore[arg-type]
    made.load()
    return made


def by_hand(folder: Path, dtype: torch.dtype = torch.float32) -> list[float]:
    """The raw outputs of the texts: the head over the last state of each, BOS in front and no EOS behind."""
    weight = read_tensors(folder)["score_head.weight"].to(dtype)
    ids = [make_tiny_tokenizer()(text)["input_ids"] for text in TEXTS]
    assert all(one[0] == 1 and one[-1] != 2 for one in ids)
    return [(weight[0] @ last_state(folder, one, dtype)).float().item() for one in ids]


@pytest.mark.parametrize("batch_tokens", [2, 8192])
def test_a_reward_is_the_head_at_the_last_token_and_a_cost_counts_against(tmp_path: Path, batch_tokens: int) -> None:
    reward, cost = make_beaver(tmp_path / "reward"), make_beaver(tmp_path / "cost", "cost", seed=3)
    found = loaded(BeaverReward, reward, batch_tokens=batch_tokens).score(ROWS)
    assert found == pytest.approx(by_hand(reward), abs=1e-4)
    found = loaded(BeaverCost, cost, batch_tokens=batch_tokens).score(ROWS)
    assert found == pytest.approx([-value for value in by_hand(cost)], abs=1e-4)


def test_texts_are_those_of_the_released_evaluation(tmp_path: Path) -> None:
    reward = loaded(BeaverReward, make_beaver(tmp_path / "model"))
    assert [reward.scorer.text(row) for row in ROWS] == TEXTS


def test_weights_are_bfloat16_and_values_float32(tmp_path: Path) -> None:
    folder = make_beaver(tmp_path / "model")
    reward = loaded(BeaverReward, folder, dtype="bfloat16")
    assert reward.settings == BeaverReward(str(folder), device="cpu").settings  # the default
    assert reward.scorer.outputs(ROWS).dtype == torch.float32
    assert reward.score(ROWS) == pytest.approx(by_hand(folder, torch.bfloat16), rel=0.05, abs=0.3)
    assert reward.score(ROWS) != by_hand(folder)


def test_a_normalised_reward_is_centred_and_a_normalised_cost_is_not(tmp_path: Path) -> None:
    # the checkpoint's buffers: mean 1.5, variance 4
    folder = make_beaver(tmp_path / "reward", do_normalize=True, mean=[9.0], var=[9.0])
    expected = [(value - 1.5) / 2 for value in by_hand(folder)]
    assert loaded(BeaverReward, folder).score(ROWS) == pytest.approx(expected, abs=1e-4)
    folder = make_beaver(tmp_path / "cost", "cost", do_normalize=True)
    assert loaded(BeaverCost, folder).score(ROWS) == pytest.approx([-v / 2 for v in by_hand(folder)], abs=1e-4)
    # without buffers those of the config, without those none
    folder = make_beaver(tmp_path / "config", do_normalize=True, mean=[0.5], var=[16.0])
    rewrite_tensors(folder, drop="normalizer.")
    expected = [(value - 0.5) / 4 for value in by_hand(folder)]
    assert loaded(BeaverReward, folder).score(ROWS) == pytest.approx(expected, abs=1e-4)
    folder = make_beaver(tmp_path / "none", do_normalize=True)
    rewrite_tensors(folder, drop="normalizer.")
    assert loaded(BeaverReward, folder).score(ROWS) == pytest.approx(by_hand(folder), abs=1e-4)


def test_a_bias_of_the_head_counts(tmp_path: Path) -> None:
    folder = make_beaver(tmp_path / "model", bias=True)
    rewrite_tensors(folder, **{"score_head.bias": torch.tensor([3.0])})
    assert loaded(BeaverReward, folder).score(ROWS) == pytest.approx([v + 3 for v in by_hand(folder)], abs=1e-4)


def test_reward_and_cost_are_not_mixed_up(tmp_path: Path) -> None:
    reward, cost = make_beaver(tmp_path / "reward"), make_beaver(tmp_path / "cost", "cost")
    with pytest.raises(UserError, match=r"a cost model by its config \(score_type\), BeaverReward asks for a reward"):
        BeaverReward(str(cost)).check()
    with pytest.raises(UserError, match=r"a reward model by its config .* BeaverCost asks for a cost model"):
        BeaverCost(str(reward)).check()


def test_another_layout_is_refused_before_the_weights_are_read(tmp_path: Path) -> None:
    folder = make_beaver(tmp_path / "headless")
    rewrite_tensors(folder, drop="score_head.")
    with pytest.raises(UserError, match=r"expected score_head\.weight beside the decoder, found none"):
        BeaverReward(str(folder)).check()
    folder = make_beaver(tmp_path / "wide")
    change_config(folder, score_dim=2)
    with pytest.raises(UserError, match="expected score_dim 1 in its config, found 2"):
        BeaverReward(str(folder)).check()
