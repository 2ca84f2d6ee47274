"""What is refused before and while a model is read: partial files, adapters beside weights, code of its own."""

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_tiny_adapter, make_tiny_model
from tiny_rewards import make_classifier
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from sipo_pl.engine.models.loading import load_base, load_outline
from sipo_pl.engine.models.merge import merge_adapter
from sipo_pl.messages.errors import UserError
from sipo_pl.rewards.local_judge import LocalJudge
from sipo_pl.rewards.sequence_classifier import SequenceClassifier
from sipo_pl.run.estimate.plan import read_config
from sipo_pl.text.tokenizers import load_tokenizer

Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A model of the test's own."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def rewrite(folder: Path, make: Callable[[Tensors], Tensors]) -> Path:
    file = folder / "model.safetensors"
    save_file(make(load_file(file)), file, metadata={"format": "pt"})
    return folder


def change_config(folder: Path, **values: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def load(folder: Path) -> None:
    load_base(str(folder), "float32")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda t: {f"_orig_mod.{name}": tensor for name, tensor in t.items()},
            r"lack lm_head\.weight of LlamaForCausalLM \(21 such\), and hold _orig_mod\.lm_head\.weight \(21 such\)",
        ),
        (
            lambda t: {name: tensor for name, tensor in t.items() if "layers.1.mlp" not in name},
            r"lack model\.layers\.1\.mlp\.down_proj\.weight of LlamaForCausalLM \(3 such\)$",
        ),
        (
            lambda t: {name: tensor for name, tensor in t.items() if name != "lm_head.weight"},
            r"lack lm_head\.weight of LlamaForCausalLM \(1 such\)$",
        ),
        (
            lambda t: t | {"model.layers.2.input_layernorm.weight": torch.ones(64)},
            r"hold model\.layers\.2\.input_layernorm\.weight \(1 such\), which has no place in LlamaForCausalLM",
        ),
        (
            lambda t: t | {"model.norm.weight": torch.ones(32)},
            r"model\.norm\.weight has the shape \(32,\), expected \(64,\) by LlamaForCausalLM of its config \(1 such\)",
        ),
    ],
    ids=["compiled", "layer", "head", "more layers", "shape"],
)
def test_a_base_model_whose_files_do_not_hold_it_is_refused(
    folder: Path, make: Callable[[Tensors], Tensors], message: str
) -> None:
    with pytest.raises(UserError, match=rf"base_model '{folder}': .*{message}"):
        load(rewrite(folder, make))


def test_a_reward_model_is_no_base_model_and_a_partial_one_no_judge_and_no_part_of_a_merge(
    tmp_path: Path, folder: Path
) -> None:
    reward = make_classifier(tmp_path / "reward")
    with pytest.raises(UserError, match=r"lack lm_head\.weight .*\(1 such\), and hold score\.weight \(1 such\)"):
        load(reward)
    adapter = make_tiny_adapter(tmp_path / "adapter", folder, 1)
    rewrite(folder, lambda t: {name: tensor for name, tensor in t.items() if "norm" not in name})
    with pytest.raises(UserError, match=r"lack .*norm\.weight of LlamaForCausalLM \(5 such\)"):
        LocalJudge(str(folder)).load()
    with pytest.raises(UserError, match=r"lack .*norm\.weight of LlamaForCausalLM \(5 such\)"):
        merge_adapter(str(folder), adapter, tmp_path / "out", "float32")
    assert not (tmp_path / "out").exists()


def test_a_tied_head_and_old_buffers_are_not_missed(tmp_path: Path, folder: Path) -> None:
    old = {f"model.layers.{k}.self_attn.rotary_emb.inv_freq": torch.ones(8) for k in range(2)}
    load(rewrite(folder, lambda t: t | old))
    tied = change_config(folder, tie_word_embeddings=True)
    load(rewrite(tied, lambda t: {name: tensor for name, tensor in t.items() if name != "lm_head.weight"}))
    config = LlamaConfig.from_pretrained(folder, num_labels=1)
    with pytest.raises(UserError, match=r"lack score\.weight"):  # a language model is no reward model either
        SequenceClassifier(str(folder)).load()
    LlamaForSequenceClassification(config).save_pretrained(folder)
    SequenceClassifier(str(folder)).load()


def test_an_adapter_beside_weights_is_refused_by_name(tmp_path: Path, folder: Path) -> None:
    adapter = make_tiny_adapter(tmp_path / "adapter", folder, 1)
    both = Path(shutil.copytree(folder, tmp_path / "both"))
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    reward = make_classifier(tmp_path / "reward")
    shutil.copy(adapter / "adapter_config.json", reward)
    for use in (
        lambda: load(both),
        lambda: load_tokenizer(str(both)),
        lambda: SequenceClassifier(str(reward), template="{prompt}{response}").check(),
    ):
        with pytest.raises(UserError, match=r"an adapter \(adapter_config\.json\) lies beside .*`sipo_pl merge`"):
            use()
    with pytest.raises(UserError, match="an adapter, not a model; `sipo_pl merge` makes a model"):
        load(adapter)


class Deaf:
    """A standard input on which nothing may be asked."""

    def readline(self) -> str:
        raise AssertionError("somebody was asked")


@pytest.fixture
def foreign(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of a type that only code of its own knows; the code leaves a file `ran`."""
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    for name in ("modeling_home.py", "tokenization_home.py"):
        (folder / name).write_text(code)
    auto_map = {"AutoConfig": "modeling_home.Config", "AutoModelForCausalLM": "modeling_home.Model"}
    monkeypatch.setattr(sys, "stdin", Deaf())
    return change_config(folder, model_type="homemade", auto_map=auto_map)


def test_code_of_a_model_never_runs_and_nobody_is_asked(foreign: Path, tmp_path: Path) -> None:
    name = str(foreign)
    for use in (
        lambda: load_base(name, "float32"),
        lambda: load_tokenizer(name),
        lambda: load_outline(name),
        lambda: SequenceClassifier(name).check(),
        lambda: LocalJudge(name).load(),
    ):
        with pytest.raises(UserError) as error:
            use()
        assert "asks for code of its own (auto_map), which never runs here" in str(error.value)
        assert "trust_remote_code" not in str(error.value)
    assert read_config(name)["model_type"] == "homemade"  # as the estimate reads it
    assert not (tmp_path / "ran").exists()


def test_code_of_a_tokenizer_never_runs(folder: Path, tmp_path: Path, foreign: Path) -> None:
    change_config(folder, model_type="llama")
    file = folder / "tokenizer_config.json"
    told = {"tokenizer_class": "HomeTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_home.Tokenizer", None]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    with contextlib.suppress(UserError):  # or by a class of transformers
        load_tokenizer(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_known_type_is_computed_by_transformers_own_class_and_that_is_said(
    foreign: Path, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    model = load_base(str(change_config(foreign, model_type="llama")), "float32")
    assert type(model) is LlamaForCausalLM
    assert "names code of its own, which is not run: LlamaForCausalLM computes it" in logged.text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "fp8"},
    ],
    ids=lambda settings: settings["quant_method"],
)
def test_weights_that_are_quantized_already_are_refused_with_a_way_out(folder: Path, settings: dict[str, Any]) -> None:
    change_config(folder, quantization_config=settings)
    for use in (load, lambda one: load_tokenizer(str(one)), lambda one: LocalJudge(str(one)).load()):
        with pytest.raises(UserError, match=rf"quantized already \(quantization_config: {settings['quant_method']}\)"):
            use(folder)


def test_a_token_without_an_embedding_is_refused_with_both_numbers(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    message = r"its tokenizer has 261 tokens and the model 260 embeddings \(vocab_size\), so that '<new>', token 260"
    with pytest.raises(UserError, match=message):
        load_tokenizer(str(folder))
    with pytest.raises(UserError, match=message):
        SequenceClassifier(str(folder), template="{prompt}{response}").check()
