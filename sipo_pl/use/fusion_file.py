"""The small file beside exported policies that says how to fuse them: `fusion.json`."""

import math
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from sipo_pl.engine.decoding.options import Decoding
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import Divergence
from sipo_pl.recipe.recipe import Component, Template
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.hashes import content_hash
from sipo_pl.storage.json_lines import read_json, require_key, require_object, write_json
from sipo_pl.use.divergence_class import class_path_of, is_shipped

FUSION_FILE = "fusion.json"
FORMAT = "sipo_pl fusion 1"
ANEW = "`sipo_pl export` makes the folder anew"
FREE = ("weights", "hash")  # what is not in the file's own hash


@dataclass(frozen=True)
class FusionFile:
    """How exported policies are fused.

    Args:
        format: name and version of the format
        objectives: names of the policies, in the order of weights
        policies: name of a policy -> {adapter: its PEFT folder beside this file, base_model: its base}
        base_hashes: base model -> hash of its weights, where it was a folder
        weights: one for each policy, which a user may change
        divergence: class_path and init_args of what fuses; for ReverseKL the next token's log-probability is, up to a
            constant, the weighted sum of those under the policies
        template: how a prompt is put to the model
        beta: scale of the implicit reward
        dtype: dtype of the base models
        decoding: how the run's evaluation decoded
        tokenizer_hashes: base model -> hash of its tokenizer, where it was a folder
        files: path of each adapter's file beside this one -> its hash
        hash: of all the rest but the weights; an older file has none of these three
    """

    format: str
    objectives: list[str]
    policies: dict[str, dict[str, str]]
    base_hashes: dict[str, str]
    weights: list[float]
    divergence: Component
    template: Template
    beta: float
    dtype: Literal["float32", "bfloat16"]
    decoding: Decoding
    tokenizer_hashes: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    hash: str | None = None

    def write(self, folder: Path) -> None:
        """Write the file into `folder`, which holds the adapters, with the hashes of these and of itself."""
        adapters = [folder / policy["adapter"] for policy in self.policies.values()]
        files = sorted(file for adapter in adapters for file in adapter.iterdir())
        values = {**asdict(self), "files": {str(file.relative_to(folder)): file_hash(file) for file in files}}
        write_json(folder / FUSION_FILE, {**values, "hash": _own_hash(values)})

    def check_files(self, folder: Path) -> None:
        """Raise UserError where an adapter's file has changed since it was written."""
        for name, expected in self.files.items():
            path = folder / name
            if not path.is_file() or file_hash(path) != expected:
                raise UserError(f"{path}: missing, damaged or edited since it was written; {ANEW}")

    @classmethod
    def read(cls, folder: Path) -> "FusionFile":
        """Read the file of `folder`.

        Raises:
            UserError: not such a file, or one of another version.
        """
        path = folder / FUSION_FILE
        values = require_object(read_json(path), str(path))
        if require_key(values, "format", str(path)) != FORMAT:
            raise UserError(f"{path}: format {values['format']!r}; this version reads {FORMAT!r}")
        for one in fields(cls):
            if one.default is MISSING and one.default_factory is MISSING:
                require_key(values, one.name, str(path))
        if values.get("hash") is not None and values["hash"] != _own_hash(values):
            raise UserError(
                f"{path}: damaged, or edited beyond its weights, since it was written; {ANEW}, "
                "or remove its key 'hash' to take it as it stands"
            )
        try:
            nested = {"template": Template(**values["template"]), "decoding": Decoding(**values["decoding"])}
            file = cls(**{**values, **nested})
            file._check_kinds(path)
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: {error}; {ANEW}") from None
        return file

    def _check_kinds(self, path: Path) -> None:
        """Raise UserError or ValueError where the file of `path` holds values of other kinds than it must."""
        for name in self.objectives:
            told = require_object(self.policies.get(name), f"{path}: policies.{name}")
            for key in ("adapter", "base_model"):
                if not isinstance(require_key(told, key, f"{path}: policies.{name}"), str):
                    raise ValueError(f"policies.{name}.{key}: expected a text, found {told[key]!r}")
        numbers = [*self.weights, self.beta]
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
            raise ValueError(f"weights and beta: expected numbers, found {numbers}")
        if len(self.weights) != len(self.objectives):
            raise ValueError(f"{len(self.weights)} weights for {len(self.objectives)} objectives")


def _own_hash(values: dict[str, Any]) -> str:
    return content_hash({key: value for key, value in values.items() if key not in FREE})


def component_of(divergence: Divergence, recipe: Component | None = None) -> Component:
    """Return class_path and init_args of a divergence.

    Args:
        divergence: the object; what a class of this package was made with is read from it.
        recipe: what the recipe names, which has the arguments of a class from elsewhere.
    """
    class_path = class_path_of(divergence)
    if is_shipped(class_path):
        arguments: dict[str, Any] = asdict(divergence) if is_dataclass(divergence) else {}
    else:
        arguments = dict((recipe or {}).get("init_args") or {})
    return {"class_path": class_path, "init_args": arguments}
