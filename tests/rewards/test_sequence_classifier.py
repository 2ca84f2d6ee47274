from pathlib import Path

import pytest
import torch
from tiny import CHAT_TEMPLATE
from tiny_rewards import ROWS, change_config, make_classifier, rewrite_tensors, to_bin
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sipo_pl.messages.errors import SettingError, UserError
from sipo_pl.rewards.sequence_classifier import SequenceClassifier
from sipo_pl.text.prompt import TextRow

TEMPLATE = "Q: {prompt} A:{response}"
TEXTS = ["Q: Why? A: Because.", "Q: How many {response}? A: Three, and then some more of them.", "Q: Über A:"]
TEXTS += ["Q: Why? A: No."]


def by_hand(folder: Path, texts: list[str]) -> list[list[float]]:
    """The logits of each text alone, by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return [model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0].tolist() for text in texts]


def loaded(folder: Path, **settings: object) -> SequenceClassifier:
    made = SequenceClassifier(str(folder), **{"template": TEMPLATE, "device": "cpu", **settings})  # type: ignore[arg-type]
    made.load()
    return made


@pytest.mark.parametrize(("kind", "pad"), [("llama", True), ("llama", False), ("bert", True)])
@pytest.mark.parametrize("batch_tokens", [2, 100, 8192])
def test_scores_are_the_logits_of_each_text_alone(tmp_path: Path, kind: str, pad: bool, batch_tokens: int) -> None:
    folder = make_classifier(tmp_path / "model", kind, pad=pad)
    expected = by_hand(folder, TEXTS)
    assert len({round(row[1], 3) for row in expected}) == 4
    for output, index in ((1, 1), ("good", 2)):
        found = loaded(folder, output=output, scale=-2.0, shift=0.5, batch_tokens=batch_tokens).score(ROWS)
        assert found == pytest.approx([-2 * row[index] + 0.5 for row in expected], abs=1e-4)


def test_a_padding_of_minus_one_is_none(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model")
    expected = loaded(folder).score(ROWS)
    change_config(folder, pad_token_id=-1)
    assert loaded(folder).score(ROWS) == expected


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", pad=True)
    expected = loaded(folder).score(ROWS)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.save_pretrained(folder)
    assert loaded(folder).score(ROWS) == expected


def test_without_a_template_the_chat_template_is_used(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", chat_template=CHAT_TEMPLATE)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    found = loaded(folder, template=None, output=2).score([TextRow(messages, "yo"), TextRow("hi", "yo")])
    texts = ["<s>system\ns</s>\n<s>user\nhi</s>\n<s>assistant\nyo</s>\n", "<s>user\nhi</s>\n<s>assistant\nyo</s>\n"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        ids = [tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in texts]
        expected = [model(one).logits[0, 2].item() for one in ids]
    assert found == pytest.approx(expected, abs=1e-5)


def test_texts_that_are_too_long_are_cut_in_front_and_counted(
    tmp_path: Path, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_classifier(tmp_path / "model")
    found = loaded(folder, max_length=11, template="{prompt}{response}").score([TextRow("abc", "defghijklmnop")] * 2)
    assert found == pytest.approx([by_hand(folder, ["ghijklmnop"])[0][0]] * 2, abs=1e-5)  # behind BOS
    assert "2 of 2 texts are longer than 11 tokens and cut in front" in logged.text
    logged.clear()
    loaded(folder).score([TextRow("x" * 300, "")])
    assert "1 of 1 texts are longer than 256 tokens" in logged.text  # the positions of the model
    logged.clear()
    loaded(folder).score([TextRow("x" * 100, "")])
    assert not logged.text


def test_no_rows_have_no_scores(tmp_path: Path) -> None:
    assert loaded(make_classifier(tmp_path / "model")).score([]) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "bf16"}, "^dtype: 'bf16' is none; did you mean|^dtype: 'bf16' is none; known: "),
        ({"device": "gpu"}, "^device: 'gpu' is none, such as cpu or cuda:0$"),
        ({"batch_tokens": 0}, "^batch_tokens: expected a number of tokens from 2 on, found 0$"),
        ({"output": None}, "^output: expected the place or name of a logit, found None$"),
        ({"scale": "1e-2"}, "^scale: expected a number, found '1e-2'$"),  # YAML reads it as a text
        ({"model": 3}, "^model: expected a text, found 3$"),
        ({"template": ["x"]}, "^template: expected a text, found "),
        ({"max_length": "x"}, "^max_length: expected a number of tokens"),
        ({"template": "{prompt}"}, r"^template: the field \{response\} is missing$"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SequenceClassifier(**{"model": "/no/such/model", **settings})  # type: ignore[arg-type]


def test_what_the_model_does_not_have_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"")  # whoever reads it fails otherwise
    for settings, message in (
        ({"output": 3}, r"^output: .* has the logits 0 to 2, not 3$"),
        ({"output": "god"}, r"^output: .* has no logit 'god'; did you mean 'good'\?$"),
        ({"template": None}, "^template: the tokenizer of .* has no chat template; give one$"),
    ):
        with pytest.raises(SettingError, match=message):
            SequenceClassifier(str(folder), **{"template": TEMPLATE, **settings}).check()  # type: ignore[arg-type]
    with pytest.raises(UserError, match="model: no folder '/no/such/model'"):
        SequenceClassifier("/no/such/model").check()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        SequenceClassifier(str(tmp_path)).check()
    change_config(folder, model_type="no_such_type")
    with pytest.raises(UserError, match="no_such_type"):
        SequenceClassifier(str(folder)).check()


def test_a_checkpoint_of_another_class_is_refused(tmp_path: Path) -> None:
    headless = make_classifier(tmp_path / "headless")
    rewrite_tensors(headless, drop="score.")
    with pytest.raises(UserError, match=r"its files lack score\.weight of LlamaForSequenceClassification \(1 such\)"):
        loaded(headless)
    wide = make_classifier(tmp_path / "wide")
    rewrite_tensors(wide, drop="score.", **{"score.weight": torch.zeros(5, 32)})
    with pytest.raises(UserError, match=r"score\.weight has the shape \(5, 32\), expected \(3, 32\) by .* \(1 such\)"):
        loaded(wide)
    biased = make_classifier(tmp_path / "biased")
    rewrite_tensors(biased, **{"score.bias": torch.zeros(3)})
    with pytest.raises(UserError, match=r"its files hold score\.bias \(1 such\), which has no place in LlamaForSeq"):
        loaded(biased)


def test_bin_weights_are_refused_with_the_command_that_converts_them(tmp_path: Path) -> None:
    folder = to_bin(make_classifier(tmp_path / "model"))
    with pytest.raises(
        UserError, match=r"\.bin only.*`python -m sipo_pl\.engine\.models\.to_safetensors .*model` converts"
    ):
        SequenceClassifier(str(folder)).check()
