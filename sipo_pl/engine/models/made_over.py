"""What a stage was made over, base model, tokenizer and reward models, held against what is there now.

A stage's manifest has the hashes. `run` looks at every stage that is complete, quickly and without torch; whoever reads
an adapter looks at the stage that made it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.components import instantiate
from sipo_pl.recipe.config.files import load_yaml
from sipo_pl.recipe.recipe import Component, Recipe
from sipo_pl.storage.hashes import content_hash, same_hash
from sipo_pl.storage.manifest import CONFIG, Manifest, differences
from sipo_pl.storage.model_hashes import model_folder, no_long_reading, tokenizer_hash, weights_hash

BASE_MODEL, TOKENIZER = "base model", "tokenizer"  # names of inputs; a base of an objective's own has a longer one
ADAPTER_CONFIG = "adapter_config.json"
PUT_BACK = "put back what was there, or make the stage anew, and what follows from it"


def check_adapter(adapter: Path, base_model: str) -> None:
    """Hold an adapter against the stage that made it, where one of this program did.

    Args:
        adapter: PEFT folder.
        base_model: folder or hub name of the model that it is to be used over.

    Raises:
        UserError: a file of it has changed since, or it was made over another base model or tokenizer.
    """
    check_files(adapter)
    if how := difference(adapter, base_model):
        raise UserError(f"{adapter}: was made over another model than {base_model!r} is now: {how}; {PUT_BACK}")


def check_files(adapter: Path) -> None:
    """Raise UserError where a file of an adapter has changed since a stage of this program wrote it."""
    if manifest := Manifest.read(adapter.parent):
        manifest.check(adapter.parent, _again(manifest), f"{adapter.name}/")


def difference(adapter: Path, base_model: str) -> str | None:
    """Return how a base model differs from the one that an adapter was made over; None where it is the same.

    Args:
        adapter: PEFT folder.
        base_model: folder or hub name; of an adapter from elsewhere nothing is known.
    """
    manifest, folder = Manifest.read(adapter.parent), model_folder(base_model)
    if manifest is None:
        return None
    # made beside the adapter, it belongs to it alone
    if folder and folder.resolve() == (adapter.parent / "model").resolve():
        manifest.check(adapter.parent, _again(manifest), "model/")
        return None
    name = _named_base(adapter)
    for key, hash_of, what in (
        (BASE_MODEL, weights_hash, "its weights or config differ"),
        (TOKENIZER, tokenizer_hash, "its tokenizer differs"),
    ):
        expected = manifest.inputs.get(key)
        if expected is None or (folder is None) != (name is not None and same_hash(expected, content_hash(name))):
            continue  # nothing is known of a folder in the place of a hub name, nor the other way round
        if not same_hash(expected, hash_of(base_model)):
            return what
    return None


def _again(manifest: Manifest) -> str:
    return f"the stage {manifest.stage}, with --overwrite,"


def _named_base(adapter: Path) -> str | None:
    try:
        value = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    name = value.get("base_model_name_or_path") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


@dataclass(frozen=True)
class ModelsNow:
    """The models that a recipe names, as they are now; hashed without long reading, and once.

    Args:
        recipe: names them
    """

    recipe: Recipe

    def check(self, folder: Path, manifest: Manifest, again: str) -> None:
        """Hold a complete stage against what it was made over.

        Args:
            folder: the stage's.
            manifest: the stage's.
            again: the command that makes it anew, for the error.

        Raises:
            UserError: a model has changed since.
        """
        with no_long_reading():
            problem = next(self._problems(folder, manifest), None)
        if problem:
            raise UserError(f"{folder}: {problem} since it was made; {PUT_BACK} ({again})")

    def _problems(self, folder: Path, manifest: Manifest) -> Iterator[str]:
        for name, expected in manifest.inputs.items():
            if name.startswith(BASE_MODEL) and not self._is_known(expected, self._weights):
                yield f"the {name} has changed, in its weights or config,"
        tokenizers = (manifest.inputs.get(TOKENIZER), manifest.keys.get(TOKENIZER))
        if not all(self._is_known(one, self._tokenizers) for one in tokenizers if isinstance(one, str)):
            yield "the tokenizer has changed"
        for name, there, here in self._reward_hashes(folder, manifest.keys):
            if here and differences(there, here):
                yield f"the model or a file of {name} has changed"

    def _is_known(self, expected: str, hashes: set[str]) -> bool:
        # where a model of the recipe is not there, whoever loads it says so
        return self._lacks_some or any(same_hash(expected, one) for one in hashes)

    @cached_property
    def _models(self) -> set[str]:
        """Return all base models that a stage of the run may have been made over."""
        recipes = [replace(self.recipe, round=number + 1) for number in range(self.recipe.rounds)]
        found = {self.recipe.base_model, self.recipe.policy_base}
        for recipe in recipes:
            for objective in recipe.objectives:
                found |= {recipe.base_of(objective, "first"), recipe.base_of(objective, "align")}
                found.add(recipe.base_of(objective, "realign"))
        return found

    @cached_property
    def _folders(self) -> set[str]:
        return {name for name in self._models if (folder := model_folder(name)) and (folder / "config.json").is_file()}

    @cached_property
    def _lacks_some(self) -> bool:
        made = self.recipe.layout.run_dir.resolve()  # by the run itself, perhaps not yet
        return any(not Path(name).resolve().is_relative_to(made) for name in self._models - self._folders - self._hub)

    @cached_property
    def _hub(self) -> set[str]:
        return {name for name in self._models if name.count("/") == 1 and not name.startswith((".", "/", "~"))}

    @cached_property
    def _weights(self) -> set[str]:
        return {weights_hash(name) for name in self._folders | self._hub}

    @cached_property
    def _tokenizers(self) -> set[str]:
        return {tokenizer_hash(name) for name in self._folders | self._hub}

    def _reward_hashes(
        self, folder: Path, keys: Mapping[str, Any]
    ) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """Yield of each reward, label or judge with files what it is called, and the hashes there and here."""
        recipe_keys = keys.get("recipe") or {}
        for kind, group in (
            ("label", keys.get("labels")),
            ("reward", keys.get("rewards") or recipe_keys.get("rewards")),
        ):
            for name, there in (group or {}).items():
                if there and "hashes" in there and name in self.recipe.objective_names:
                    component = getattr(self.recipe.objective(name), kind)
                    yield f"the {kind} of {name}", there["hashes"], _hashes_of(component)
        if recipe_keys.get("margins") or recipe_keys.get("judge"):
            model = load_yaml(folder / CONFIG).get("model") or {}
            for name, hashes in (recipe_keys.get("margins") or {}).items():
                yield f"the margins' reward of {name}", hashes, _hashes_of(_own((model.get("margins") or {}).get(name)))
            if "judge" in recipe_keys:
                yield "the judge", recipe_keys["judge"], _hashes_of(_own(model.get("judge")))


def _hashes_of(component: Component | None) -> dict[str, str]:
    """Return the hashes of a reward's or judge's files as they are now; none where they cannot be told."""
    arguments = (component or {}).get("init_args") or {}
    if not component or any(_is_gone(value) for value in arguments.values()):
        return {}
    return dict(instantiate(component, object, "class_path").hashes)  # type: ignore[attr-defined]


def _own(component: Component | None) -> Component | None:
    """Return a component that a run folder names, where it is of this package: the folder may come from anywhere."""
    return component if component and str(component.get("class_path")).startswith("sipo_pl.") else None


def _is_gone(value: object) -> bool:
    """Return whether a setting names a path where nothing is any more."""
    is_path = isinstance(value, str) and value.startswith((".", "/", "~"))
    return is_path and not Path(str(value)).expanduser().exists()
