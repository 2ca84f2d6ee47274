import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny import CHAT_TEMPLATE, make_tiny_adapter, make_tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from sipo_pl.engine.lora.adapters import read_adapter, write_adapter
from sipo_pl.engine.models.loading import load_base
from sipo_pl.engine.models.merge import average_models, merge, merge_adapter
from sipo_pl.messages.errors import UserError

IDS = torch.randint(4, 200, (3, 11), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    return model(input_ids=IDS).logits.float()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_merged_model_is_base_and_adapter(adapter_folders: list[Path], tmp_path: Path, index: int) -> None:
    folder = make_tiny_model(tmp_path / "base", spread=0.1)
    drift = merge_adapter(str(folder), adapter_folders[index], tmp_path / "merged", "float32")
    base = AutoModelForCausalLM.from_pretrained(folder)
    alone = logits(base)
    theirs = logits(PeftModel.from_pretrained(base, str(adapter_folders[index])).eval())
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    assert (theirs - alone).abs().max() > 0.1
    torch.testing.assert_close(merged, theirs, rtol=0, atol=1e-5)
    assert drift.largest < 1e-5
    assert 0 < drift.mean <= drift.largest


def test_the_change_and_the_drift_of_rounding_are_measured(lively_model: Path, adapter_folders: list[Path]) -> None:
    base = load_base(str(lively_model), "float32")
    factors = read_adapter(adapter_folders[0]).factors
    weights = {name: base.get_submodule(name).weight.clone() for name in factors}
    updates = torch.stack([(b @ a).norm() for a, b in factors.values()])
    expected = updates.norm() / torch.stack([weight.norm() for weight in weights.values()]).norm()
    exact = merge(base, factors, "float32")
    assert exact.change == pytest.approx(float(expected), rel=1e-5)
    rounded = merge(load_base(str(lively_model), "float32"), factors, "bfloat16")
    assert rounded.largest > 100 * exact.largest
    assert rounded.change == pytest.approx(float(expected), rel=0.02)


def test_weights_are_rounded_once(lively_model: Path, adapter_folders: list[Path], tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        merge_adapter(str(lively_model), adapter_folders[0], tmp_path / dtype, dtype)  # type: ignore[arg-type]
    whole, half = (load_file(tmp_path / dtype / "model.safetensors") for dtype in ("float32", "bfloat16"))
    assert {tensor.dtype for tensor in half.values()} == {torch.bfloat16}
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in whole.items())


def test_the_folder_is_a_whole_model(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base", chat_template=CHAT_TEMPLATE)
    settings = {"eos_token_id": 2, "temperature": 0.7, "do_sample": True}
    (base / "generation_config.json").write_text(json.dumps(settings))
    merge_adapter(str(base), make_tiny_adapter(tmp_path / "adapter", base, 1), tmp_path / "merged", "bfloat16")
    assert json.loads((tmp_path / "merged/generation_config.json").read_text()) == settings
    there, here = (AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "merged"))
    assert here.chat_template == there.chat_template == CHAT_TEMPLATE
    assert here("some text").input_ids == there("some text").input_ids
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.bfloat16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base", "merged"]


def test_a_merge_that_changes_nothing_is_refused(
    lively_model: Path, adapter_folders: list[Path], tmp_path: Path
) -> None:
    factors = read_adapter(adapter_folders[0]).factors
    write_adapter(tmp_path / "tiny", {name: (a, b * 1e-12) for name, (a, b) in factors.items()}, base_model="x")
    write_adapter(tmp_path / "none", {name: (a, b * 0) for name, (a, b) in factors.items()}, base_model="x")
    for name, dtype in (("tiny", "bfloat16"), ("none", "float32")):
        with pytest.raises(UserError, match=f"merged in {dtype}, the model is its base again"):
            merge_adapter(str(lively_model), tmp_path / name, tmp_path / "merged", dtype)  # type: ignore[arg-type]
    assert not (tmp_path / "merged").exists()


def test_a_head_that_shares_the_embedding_is_not_merged_into(tmp_path: Path) -> None:
    config = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "base")).config
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tied")
    factors = {"lm_head": (torch.ones(1, 64), torch.ones(config.vocab_size, 1))}
    with pytest.raises(UserError, match="'lm_head' shares its weight with the embedding"):
        merge(load_base(str(tmp_path / "tied"), "float32"), factors, "float32")


# whole models


def test_an_average_is_that_of_the_weights(tmp_path: Path) -> None:
    models = [str(make_tiny_model(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 1), ("c", 2))]
    average_models(models, (0.5, 0.3, 0.2), tmp_path / "soup", "float32")
    a, b, c = (load_file(f"{model}/model.safetensors") for model in models)
    for name, tensor in load_file(tmp_path / "soup/model.safetensors").items():
        torch.testing.assert_close(tensor, 0.5 * a[name] + 0.3 * b[name] + 0.2 * c[name])
    assert AutoTokenizer.from_pretrained(tmp_path / "soup")("x").input_ids


def test_models_of_other_architectures_and_equal_ones_are_not_averaged(tmp_path: Path) -> None:
    one, same = (str(make_tiny_model(tmp_path / name)) for name in ("one", "same"))
    with pytest.raises(UserError, match=r"the average of .* is .*one again"):
        average_models([one, same], (0.5, 0.5), tmp_path / "soup", "bfloat16")
    config = AutoModelForCausalLM.from_pretrained(one).config
    config.intermediate_size = 96
    other = AutoModelForCausalLM.from_config(config)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"other: 'model\.layers\.0\.mlp\.down_proj\.weight' is 64 x 96, in .*64 x 128"):
        average_models([one, str(tmp_path / "other")], (0.5, 0.5), tmp_path / "soup", "float32")
    config.intermediate_size, config.num_hidden_layers = 128, 1
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "short")
    with pytest.raises(UserError, match=r"short: 'model\.layers\.1\..*' is missing, in "):
        average_models([one, str(tmp_path / "short")], (0.5, 0.5), tmp_path / "soup", "float32")
    assert not (tmp_path / "soup").exists()
