import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_tiny_model
from tiny_rewards import make_classifier, read_tensors, to_bin
from transformers import AutoModelForCausalLM

from sipo_pl.engine.models.files import checkpoint_folder, read_tensor, tensor_files
from sipo_pl.engine.models.loading import load_base
from sipo_pl.engine.models.to_safetensors import main, to_safetensors
from sipo_pl.messages.errors import UserError


def test_the_printed_command_converts_bin_weights(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    expected = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    to_bin(folder)
    with pytest.raises(UserError, match=r"weights as \.bin only") as error:
        load_base(str(folder), "float32")
    printed = str(error.value).split("`")[1].split()
    assert subprocess.run([sys.executable, *printed[1:]], check=False).returncode == 0
    found = load_base(str(folder), "float32").state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_shards_get_an_index_and_tied_tensors_a_copy_each(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    torch.save({"a": tied, "b": tied}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"c": torch.ones(2, 3).T}, tmp_path / "pytorch_model-00002-of-00002.bin")
    names = [path.name for path in to_safetensors(tmp_path)]
    assert names == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)] + ["model.safetensors.index.json"]
    assert json.loads((tmp_path / names[2]).read_text())["metadata"] == {"total_size": 4 * (4 + 4 + 6)}
    assert set(tensor_files(tmp_path)) == {"a", "b", "c"}
    assert torch.equal(read_tensor(tmp_path, "b"), tied)
    assert read_tensor(tmp_path, "c").shape == (3, 2)


def test_a_pickle_that_runs_code_is_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    assert main([str(tmp_path)]) == 1
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "model.safetensors").exists()
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["/no/such/folder"], ["a", "b"]])
def test_the_conversion_says_how_it_is_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage: python -m sipo_pl.engine.models.to_safetensors" in capsys.readouterr().err


def test_a_folder_with_both_is_read(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model")
    torch.save({}, folder / "pytorch_model.bin")
    assert checkpoint_folder(str(folder), weights=True) == folder
    assert set(tensor_files(folder)) == set(read_tensors(folder)) == set(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("name", ["./model", "/no/such/model", "model", "a/b/c"])
def test_a_folder_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"model: no folder '{name}' \(a hub name reads owner/name\)"):
        checkpoint_folder(name, weights=False)


def test_a_hub_name_that_cannot_be_had_is_named() -> None:
    with pytest.raises(UserError, match="model 'no-such-owner/no-such-model': "):
        checkpoint_folder("no-such-owner/no-such-model", weights=False)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        tensor_files(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"index\.json: damaged"):
        tensor_files(tmp_path)
