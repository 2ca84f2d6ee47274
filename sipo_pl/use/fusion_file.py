"""The small file beside exported policies that says how to fuse them: `fusion.json`."""

from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from sipo_pl.engine.decoding.options import Decoding
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import Divergence
from sipo_pl.recipe.components import instantiate
from sipo_pl.recipe.recipe import Component, Template
from sipo_pl.storage.artifacts import read_json, require_key, require_object, write_json

FUSION_FILE = "fusion.json"
FORMAT = "sipo_pl fusion 1"


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

    def write(self, folder: Path) -> None:
        """Write the file into `folder`."""
        write_json(folder / FUSION_FILE, asdict(self))

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
        for field in fields(cls):
            require_key(values, field.name, str(path))
        try:
            nested = {"template": Template(**values["template"]), "decoding": Decoding(**values["decoding"])}
            return cls(**{**values, **nested})
        except TypeError as error:
            raise UserError(f"{path}: {error}") from None


def component_of(divergence: Divergence) -> Component:
    """Return class_path and init_args of a divergence."""
    kind = type(divergence)
    arguments: dict[str, Any] = asdict(divergence) if is_dataclass(divergence) else {}
    return {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": arguments}


def divergence_from(component: Component, path: Path) -> Divergence:
    """Return the divergence of a file that may come from anywhere: one of this package, and no other module's.

    Raises:
        UserError: another module, which a file from elsewhere must not choose to import.
    """
    name: Any = component.get("class_path")
    if not str(name).startswith("sipo_pl.method.divergences."):
        raise UserError(
            f"{path}: divergence {name!r} is not of sipo_pl.method.divergences; "
            "policies under one of your own are used from their run folder"
        )
    return instantiate(component, Divergence, f"{path}: divergence")  # type: ignore[type-abstract]
