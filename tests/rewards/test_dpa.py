from pathlib import Path

import pytest
import torch
from tiny import make_tiny_tokenizer
from tiny_rewards import ROWS, change_config, last_state, make_classifier, make_dpa, read_tensors, rewrite_tensors

from sipo_pl.messages.errors import SettingError, UserError
from sipo_pl.rewards.dpa import ATTRIBUTES, DPA
from sipo_pl.text.prompt import TextRow

FRAME = (
    "[INST] You must read the following conversation carefully and rate the assistant's response from score 0-100 in "
    "these aspects: helpfulness, correctness, coherence, honesty, complexity, verbosity\n\nUser: {}\n\nAssistant: {} "
    "[/INST]"
)
TEXTS = [FRAME.format(p, r) for p, r in (("Why?", " Because."), ("How many {response}?", ROWS[1].response))]
TEXTS += [FRAME.format("Über", ""), FRAME.format("Why?", " No.")]


def loaded(attribute: str, folder: Path, **settings: object) -> DPA:
    made = DPA(attribute, str(folder), device="cpu", **settings)  # type: ignore[arg-type]
    made.load()
    return made


def by_hand(folder: Path, text: str, head: str) -> list[float]:
    """The ten outputs of one text: the layer, over the last state of the decoder."""
    tensors = read_tensors(folder)
    state = last_state(folder, make_tiny_tokenizer()(text)["input_ids"], sliding_window=4096)
    values = tensors[f"{head}.weight"] @ state
    return (values + tensors.get(f"{head}.bias", torch.zeros(10))).tolist()


@pytest.mark.parametrize(("head", "bias"), [("score", False), ("score", True), ("regression_layer", True)])
def test_rewards_are_on_the_scale_of_helpsteer(tmp_path: Path, head: str, bias: bool) -> None:
    folder = make_dpa(tmp_path / "model", head, bias)
    expected = [by_hand(folder, text, head) for text in TEXTS]
    assert max(map(abs, expected[0])) > 5
    for index, attribute in enumerate(("helpfulness", "correctness", "coherence", "complexity", "verbosity")):
        found = loaded(attribute, folder).score(ROWS)
        assert found == pytest.approx([(row[index] - 10) / 20 for row in expected], abs=1e-4)
    fewer = loaded("verbosity", folder, scale=-1.0, batch_tokens=2).score(ROWS)
    assert fewer == pytest.approx([(10 - row[4]) / 20 for row in expected], abs=1e-4)


def test_the_frame_is_the_one_that_the_model_was_trained_with(tmp_path: Path) -> None:
    reward = loaded("verbosity", make_dpa(tmp_path / "model"))
    assert [reward.scorer.text(row) for row in ROWS] == TEXTS


def test_a_template_of_ones_own_takes_its_place(tmp_path: Path) -> None:
    folder = make_dpa(tmp_path / "model")
    (tmp_path / "own.txt").write_text("{prompt}>{response}\n", encoding="utf-8")
    reward = loaded("coherence", folder, template_file=str(tmp_path / "own.txt"))
    assert reward.scorer.text(ROWS[0]) == "Why?> Because."
    assert reward.score(ROWS[:1]) == pytest.approx(
        [(by_hand(folder, "Why?> Because.", "score")[2] - 10) / 20], abs=1e-4
    )
    assert reward.hashes["template"] != DPA("coherence", str(folder)).hashes["template"]
    assert reward.hashes["model"] == DPA("coherence", str(folder)).hashes["model"]


def test_attention_slides_over_4096_tokens(tmp_path: Path) -> None:
    folder = make_dpa(tmp_path / "model", max_position_embeddings=8192)
    reward = loaded("coherence", folder)
    text = "x" * 4200
    ids = make_tiny_tokenizer()(FRAME.format(text, "y"))["input_ids"]
    state = last_state(folder, ids, sliding_window=4096)
    assert (state - last_state(folder, ids)).abs().max() > 1e-5
    tensors = read_tensors(folder)
    expected = (tensors["score.weight"][2] @ state + tensors["score.bias"][2] - 10) / 20
    assert reward.score([TextRow(text, "y")]) == pytest.approx([expected.item()], abs=1e-4)


def test_two_attributes_share_one_model_that_runs_once(tmp_path: Path) -> None:
    folder = make_dpa(tmp_path / "model")
    first, second = (loaded(name, folder) for name in ("correctness", "verbosity"))
    assert first.scorer is second.scorer
    other = loaded("verbosity", folder, dtype="bfloat16")
    assert other.scorer is not first.scorer
    forwards: list[int] = []
    first.scorer.model.register_forward_hook(lambda *_: forwards.append(1))  # type: ignore[union-attr]
    first.score(ROWS)
    second.score(list(ROWS))
    assert len(forwards) == 1
    second.score(ROWS[:2])
    assert len(forwards) == 2
    scorer = first.scorer
    first.free()
    assert second.scorer is scorer
    second.free()
    del scorer
    assert second.scorer.model is None  # the shared one is gone


@pytest.mark.parametrize("attribute", ["verbose", "honesty", 4])
def test_an_attribute_that_is_none_is_refused_at_once(attribute: str) -> None:
    with pytest.raises(SettingError, match=r"^attribute: no "):
        DPA(attribute)
    assert "verbosity" in ATTRIBUTES


def test_a_template_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^template_file: .*no\.txt: No such file"):
        DPA("verbosity", template_file=str(tmp_path / "no.txt"))
    (tmp_path / "short.txt").write_text("{prompt}", encoding="utf-8")
    with pytest.raises(SettingError, match=r"^template_file: the field \{response\} is missing"):
        DPA("verbosity", template_file=str(tmp_path / "short.txt"))


def test_another_layout_is_refused_before_the_weights_are_read(tmp_path: Path) -> None:
    folder = make_dpa(tmp_path / "headless")
    rewrite_tensors(folder, drop="score.")
    with pytest.raises(UserError, match="expected one linear layer beside the decoder, found none"):
        DPA("verbosity", str(folder)).check()
    folder = make_dpa(tmp_path / "deep")
    rewrite_tensors(folder, **{"gate.weight": torch.zeros(2)})
    with pytest.raises(UserError, match=r"one linear layer beside the decoder, found gate\.weight, score\.bias"):
        DPA("verbosity", str(folder)).check()
    folder = make_dpa(tmp_path / "labels")
    change_config(folder, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    with pytest.raises(UserError, match="expected 10 labels in its config, found 2"):
        DPA("verbosity", str(folder)).check()
    with pytest.raises(UserError, match="expected a mistral model, found llama"):
        DPA("verbosity", str(make_classifier(tmp_path / "llama"))).check()


def test_wrong_shapes_and_missing_tensors_are_refused(tmp_path: Path) -> None:
    folder = make_dpa(tmp_path / "narrow")
    rewrite_tensors(folder, drop="score.", **{"score.weight": torch.zeros(5, 32)})
    with pytest.raises(UserError, match=r"score\.weight has the shape \(5, 32\), expected \(10, 32\)"):
        loaded("verbosity", folder)
    folder = make_dpa(tmp_path / "partial")
    rewrite_tensors(folder, drop="model.norm")
    with pytest.raises(UserError, match=r"lack norm\.weight of MistralModel \(1 such\)"):
        loaded("verbosity", folder)
