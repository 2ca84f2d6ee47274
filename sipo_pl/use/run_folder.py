"""What a run folder says of its run, without the config files that made it."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from sipo_pl.engine.decoding.options import Decoding
from sipo_pl.messages.errors import SettingError, UserError
from sipo_pl.method.weights import WeightPlan
from sipo_pl.recipe.checks import check_names
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.config.files import load_yaml
from sipo_pl.recipe.data import Data, Mixture
from sipo_pl.recipe.recipe import Objective, PolicyStage, Recipe, Template, round_name
from sipo_pl.registry import PLACES
from sipo_pl.storage.manifest import CONFIG

T = TypeVar("T")
_ANEW = "the command of its stage writes it anew, with --overwrite"

# stages whose config tells the recipe, the later the better: settings of the recipe may have been added in between
_TELLING = tuple(
    f"{name}-*" if stage.named_for == "objective" else name
    for name, (stage, _) in reversed(PLACES.items())
    if stage.tells_recipe
)


def read_recipe(run_dir: Path) -> Recipe:
    """Return the recipe of a run as the last of its trainer stages read it, in this folder, in the run's last round.

    Raises:
        UserError: no run there.
    """
    found = next(_configs(run_dir), None)
    if found is None:
        raise UserError(
            f"{run_dir}: no run here: none of the stages {', '.join(_TELLING).replace('*', '…')} has a {CONFIG}"
        )
    values = load_yaml(found).get("recipe")
    if not isinstance(values, dict):
        raise UserError(f"{found}: no recipe in it, so it is not a stage's config of this program")
    try:
        recipe = replace(_recipe(values), run_dir=str(run_dir))
        check_names(recipe)  # the folder may come from anywhere, and they name what is written
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{found}: damaged: {type(error).__name__}: {error}; {_ANEW}") from None
    except SettingError as error:
        raise UserError(f"{found}: recipe.{error}; {_ANEW}") from None
    return recipe


def kept_stage(recipe: Recipe) -> PolicyStage:
    """Return the last stage whose policies are all there: realign, or align where there was no re-alignment.

    Raises:
        UserError: neither is complete.
    """
    missing: list[str] = []
    stages: tuple[PolicyStage, ...] = ("realign", "align")
    for stage in stages:
        folders = [recipe.layout.adapter(stage, one) for one in recipe.objectives]
        lacking = [folder for folder in folders if not (folder / "adapter_config.json").is_file()]
        if not lacking:
            return stage
        missing += map(str, lacking)
    raise UserError(f"{recipe.layout.run_dir}: policies are missing: {', '.join(missing)}")


def evaluation_decoding(recipe: Recipe, stage: PolicyStage) -> Decoding:
    """Return how the evaluation of a stage's policies decoded; the usual settings where there was none."""
    config = recipe.layout.stage(f"evaluate-{stage}") / CONFIG
    if not config.is_file():
        return Decoding()
    return _made(Decoding, (load_yaml(config).get("model") or {}).get("decoding") or {})


def _configs(run_dir: Path) -> Iterator[Path]:
    rounds = sorted(run_dir.glob(round_name(0).replace("0", "*")), key=lambda path: int(path.name.rpartition("-")[2]))
    for folder in [*reversed(rounds), run_dir]:
        for name in _TELLING:
            yield from sorted(folder.glob(f"{name}/{CONFIG}"))


def _recipe(values: dict[str, Any]) -> Recipe:
    data = values["data"]
    nested = {
        "objectives": [_made(Objective, one) for one in values["objectives"]],
        "data": _made(Data, {**data, "mixture": _made(Mixture, data.get("mixture") or {})}),
        "template": _made(Template, values["template"]),
        "sample_weights": _made(WeightPlan, values["sample_weights"]),
        "evaluate_weights": _made(WeightPlan, values["evaluate_weights"]),
        "compat": _made(Compat, values.get("compat") or {}),
    }
    return _made(Recipe, {**values, **nested})


def _made(kind: type[T], values: dict[str, Any]) -> T:
    """Return a dataclass from those values that it knows; another version may have written more."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in values.items() if key in known})
