"""The local judge against its model's own forward, and in both orders."""

from pathlib import Path

import pytest
import torch
from tiny import CHAT_TEMPLATE, make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from sipo_pl.messages.errors import SettingError
from sipo_pl.rewards.local_judge import TEMPLATE_FILE, Contest, LocalJudge

CONTESTS = [Contest("Why?", "Because.", "No."), Contest("Why?", "No.", "Because."), Contest("Hm?", "Same.", "Same.")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("judge") / "model", chat_template=CHAT_TEMPLATE, spread=0.3)


def by_hand(folder: Path, prompt: str, first: str, second: str) -> float:
    """The probability of A against B, by transformers."""
    tokenizer, chat = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    question = TEMPLATE_FILE.read_text().removesuffix("\n")
    for field, text in (("prompt", prompt), ("first", first), ("second", second)):
        question = question.replace(f"{{{field}}}", text)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    with torch.no_grad():
        logits = chat(torch.tensor([ids])).logits[0, -1]
    a, b = (tokenizer(answer, add_special_tokens=False)["input_ids"][0] for answer in "AB")
    return float(logits[[a, b]].softmax(dim=0)[0])


@pytest.mark.parametrize("batch_tokens", [2, 8192])
def test_a_win_is_the_mean_of_both_orders(model: Path, batch_tokens: int) -> None:
    judge = LocalJudge(str(model), dtype="float32", device="cpu", batch_tokens=batch_tokens)
    judge.load()
    found = judge.win_rates(CONTESTS)
    first, turned = (by_hand(model, "Why?", *order) for order in (("Because.", "No."), ("No.", "Because.")))
    assert abs(first + turned - 1) > 1e-3  # it has a taste for a place
    assert found[0] == pytest.approx((first + 1 - turned) / 2, abs=1e-5)
    assert found[0] + found[1] == pytest.approx(1.0, abs=1e-5)
    assert found[2] == pytest.approx(0.5, abs=1e-5)
    assert judge.win_rates([]) == []


def test_a_question_needs_both_answers(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "question.txt"
    file.write_text("{prompt} {first}")
    with pytest.raises(SettingError, match="second"):
        LocalJudge(str(model), template_file=str(file))
