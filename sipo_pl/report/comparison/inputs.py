"""What a comparison is made of: judged answers, costs and yields of its own run folder and of those put beside."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sipo_pl.data.units import read_units
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Recipe, RunLayout
from sipo_pl.registry import METHODS
from sipo_pl.report.comparison.answers import Answers, Key, read_answers
from sipo_pl.report.comparison.cost import costs, minutes
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.json_lines import read_json
from sipo_pl.storage.manifest import Manifest


@dataclass
class ComparisonInputs:
    """Everything by method; those of a folder put beside are called ``folder:method``.

    Args:
        titles: how a method is called in tables and pictures, in order
        answers: measured answers by method and point
        rows: rows of answer and judge, joined
        cost: what `costs` says
        minutes: wall clock of its stages; None where it is not known
        yields: of a method that improves itself, its title to stage to table of yields
        versions: package to the version that the answers were made with
    """

    titles: dict[str, str] = field(default_factory=dict)
    answers: dict[Key, Answers] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, dict[str, Any]] = field(default_factory=dict)
    minutes: dict[str, float | None] = field(default_factory=dict)
    yields: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def read_inputs(recipe: Recipe, folders: Mapping[str, Path]) -> ComparisonInputs:
    """Read the run folders of a comparison.

    Args:
        recipe: of the first folder.
        folders: name to run folder; the comparison's own is called "" and comes first.

    Raises:
        UserError: folders that were measured differently, or answered other prompts.
    """
    found = ComparisonInputs()
    manifest = Manifest.read(recipe.layout.stage("answer"))
    found.versions = dict(manifest.versions) if manifest else {}
    for prefix, folder in folders.items():
        _check_alike(folder, recipe.layout)
        _read_folder(recipe, prefix, folder, found)
    return found


def _read_folder(recipe: Recipe, prefix: str, folder: Path, found: ComparisonInputs) -> None:
    def named(method: str) -> str:
        return f"{prefix}:{method}" if prefix else method

    judged = read_units(folder / "judge")
    measured = read_answers(judged, recipe.objective_names)
    found.answers |= {(named(method), point): one for (method, point), one in measured.items()}
    by_id = {row["sample_id"]: row for row in judged}
    for row in read_units(folder / "answer"):
        if row["sample_id"] in by_id:
            found.rows.append({**row, **by_id[row["sample_id"]], "method": named(row["method"])})
    own = _costs_beside(folder) if prefix else costs(recipe)
    for method in dict.fromkeys(method for method, _ in measured):
        if method not in METHODS or method not in own:
            raise UserError(f"{folder}: no method of this version, or none whose cost is told there: {method}")
        name, stages = named(method), own[method]["stages"]
        found.titles[name] = _title(prefix, method)
        found.cost[name] = own[method]
        found.minutes[name] = minutes(folder, stages)
        files = {stage: folder / stage / "yields.json" for stage in stages}
        if yields := {stage: read_json(path) for stage, path in files.items() if path.exists()}:
            found.yields[found.titles[name]] = yields


def _costs_beside(folder: Path) -> dict[str, Any]:
    path = folder / "compare" / "metrics.json"
    metrics = read_json(path)
    found = metrics.get("cost") if isinstance(metrics, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"{path}: tells no cost of methods; `sipo_pl compare --overwrite` there makes it anew")
    return found


def _check_alike(folder: Path, layout: RunLayout) -> None:
    other = RunLayout(folder)
    if read_json(other.frame) != read_json(layout.frame):
        raise UserError(f"{folder}: calibrated on other texts or rewards, so its numbers cannot stand beside these")
    if file_hash(other.test_prompts) != file_hash(layout.test_prompts):
        raise UserError(f"{folder}: answers to other test prompts")


def _title(prefix: str, method: str) -> str:
    title = METHODS[method].title
    return f"{title} ({prefix})" if prefix else title
