"""Names that were true before modules moved: in imports, class paths and manifests."""

import importlib
import json
from pathlib import Path

import pytest

from sipo_pl.messages.errors import UserError
from sipo_pl.method.losses import DPO
from sipo_pl.recipe.components import instantiate
from sipo_pl.recipe.recipe import Recipe, Template
from sipo_pl.storage.manifest import Manifest, open_stage
from sipo_pl.storage.moved_modules import MOVED, current_name, with_current_names
from sipo_pl.text import templates
from sipo_pl.text.tokenizers import load_tokenizer


@pytest.mark.parametrize("name", [name for name in MOVED if name != "policies.attention_cuda"])  # needs triton
def test_an_earlier_name_is_the_very_module(name: str) -> None:
    earlier = importlib.import_module(f"sipo_pl.{name}")

    assert earlier is importlib.import_module(f"sipo_pl.{MOVED[name]}")
    assert earlier.__spec__ is not None
    assert earlier.__spec__.name == earlier.__name__ == f"sipo_pl.{MOVED[name]}"


def test_what_is_below_an_earlier_name_is_no_copy() -> None:
    assert importlib.import_module("sipo_pl.losses.dpo").DPO is DPO


def test_scripts_of_before_find_recipes_templates_and_tokenizers() -> None:
    data, loading, recipe = map(
        importlib.import_module, ("sipo_pl.data.templates", "sipo_pl.policies.loading", "sipo_pl.recipe")
    )
    assert data.PromptTemplate is templates.PromptTemplate
    assert loading.load_tokenizer is load_tokenizer
    assert (recipe.Recipe, recipe.Template) == (Recipe, Template)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sipo_pl.policies.no_such")


def test_a_name_that_never_was_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"sipo_pl\.method\.losses\.no_such"):
        importlib.import_module("sipo_pl.losses.no_such")


def test_a_class_path_of_before_names_the_same_class() -> None:
    assert isinstance(instantiate({"class_path": "sipo_pl.losses.DPO"}, DPO, "model.loss"), DPO)


def test_only_class_paths_are_renamed() -> None:
    value = {"loss": {"class_path": "sipo_pl.losses.DPO"}, "note": "sipo_pl.losses.DPO", "rest": [1, None]}

    assert with_current_names(value)["loss"] == {"class_path": "sipo_pl.method.losses.DPO"}
    assert with_current_names(value)["note"] == "sipo_pl.losses.DPO"
    assert current_name("other.losses.DPO") == "other.losses.DPO"


def test_a_folder_made_before_is_found_made_by_the_same_settings(tmp_path: Path) -> None:
    folder = tmp_path / "align"
    folder.mkdir()
    keys = {"loss": {"class_path": "sipo_pl.losses.DPO"}}
    Manifest("align", keys, complete=True, seed=1).write(folder)

    assert open_stage(folder, "align", {"loss": {"class_path": "sipo_pl.method.losses.DPO"}}, {}, seed=1).complete
    assert open_stage(folder, "align", keys, {}, seed=1).complete
    assert json.loads((folder / "manifest.json").read_text())["keys"] == keys
    with pytest.raises(UserError, match="made by other settings"):
        open_stage(folder, "align", {"loss": {"class_path": "sipo_pl.method.losses.MODPO"}}, {}, seed=1)
