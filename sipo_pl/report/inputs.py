"""What the stages of a run left for its report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipo_pl.data.units import read_units
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Recipe, in_round
from sipo_pl.registry import PLACES, STAGES
from sipo_pl.storage.json_lines import read_json, read_jsonl
from sipo_pl.storage.manifest import VERSIONS, Manifest, input_hash

MEASURED = [place.name for place in STAGES["measure"].places]
PARTS = {name: place.report for name, (_, place) in PLACES.items() if place.report}  # what the page lacks without each

JsonRows = list[dict[str, Any]]


@dataclass(frozen=True)
class ReportInputs:
    """Rows and tables of the stages that are there; empty for those that are not.

    Args:
        rows: stage to the rows of its units; of several rounds, those of the last
        earlier: round to the measured rows of its re-alignment, of the rounds before the last
        pairs: prepared conflicting pairs
        combined: rows of combine
        kept: rows of filter
        statistics: tables of prepare
        yields: stage to its table of yields, of a later round as round-2/filter
        versions: package to the versions that made the stages
        left_out: stage to a line that says what the report lacks
    """

    rows: Mapping[str, JsonRows]
    earlier: Mapping[int, JsonRows]
    pairs: JsonRows
    combined: JsonRows
    kept: JsonRows
    statistics: dict[str, Any] | None
    yields: dict[str, Any]
    versions: dict[str, str]
    left_out: dict[str, str]


def input_hashes(recipe: Recipe) -> dict[str, str]:
    """Return stage to content hash for the stages that the report reads.

    Raises:
        UserError: no front was measured at all, or a stage is not complete.
    """
    folders = _all_folders(recipe)
    if not any(stage in folders for stage in MEASURED):
        where = " nor ".join(str(recipe.layout.stage(stage)) for stage in MEASURED)
        raise UserError(f"nothing to report: neither {where} is there; `sipo_pl run` makes them")
    return {stage: input_hash(folder, f"sipo_pl run --only {stage}") for stage, folder in folders.items()}


def read_inputs(recipe: Recipe) -> ReportInputs:
    """Read what the report shows; a stage that is switched off or has not run is left out."""
    last = last_round(recipe)
    folders, everything = _folders(recipe, last), _all_folders(recipe)
    return ReportInputs(
        earlier={
            number: read_units(everything[name])
            for number in range(1, last)
            if (name := in_round("measure-realign", number)) in everything
        },
        rows={stage: read_units(folders[stage]) if stage in folders else [] for stage in PARTS},
        pairs=_jsonl(folders.get("prepare"), recipe.layout.pairs("train_conflict").name),
        combined=_jsonl(folders.get("combine"), "combined.jsonl"),
        kept=_jsonl(folders.get("filter"), "kept.jsonl"),
        statistics=_json(folders.get("prepare"), "statistics.json"),
        yields={
            name: table
            for number in range(1, last + 1)
            for name in (in_round("combine", number), in_round("filter", number))
            if (table := _json(everything.get(name), "yields.json")) is not None
        },
        versions=_versions(everything),
        left_out={
            stage: f"Left out: {part} (stage {stage} {'has not run' if recipe.runs(stage) else 'is switched off'})."
            for stage, part in PARTS.items()
            if stage not in folders
        },
    )


def last_round(recipe: Recipe) -> int:
    """Return the last round whose re-alignment was measured; 1 where none was."""
    numbers = range(1, recipe.rounds + 1)
    return max((n for n in numbers if recipe.layout.at(n).stage("measure-realign").is_dir()), default=1)


def _folders(recipe: Recipe, number: int) -> dict[str, Path]:
    """Return stage to folder for those stages of the run and of one of its rounds that are there."""
    layout = recipe.layout.at(number)
    folders = {stage: layout.stage(stage) for stage in PARTS if recipe.runs(stage)}
    return {stage: folder for stage, folder in folders.items() if folder.is_dir()}


def _all_folders(recipe: Recipe) -> dict[str, Path]:
    """Return the same of all rounds, by the folders' names within the run's."""
    found = [_folders(recipe, number) for number in range(1, last_round(recipe) + 1)]
    run_dir = recipe.layout.run_dir
    return {folder.relative_to(run_dir).as_posix(): folder for folders in found for folder in folders.values()}


def _json(folder: Path | None, name: str) -> dict[str, Any] | None:
    return read_json(folder / name) if folder and (folder / name).exists() else None


def _jsonl(folder: Path | None, name: str) -> JsonRows:
    return read_jsonl(folder / name) if folder and (folder / name).exists() else []


def _versions(folders: Mapping[str, Path]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for folder in folders.values():
        manifest = Manifest.read(folder)
        for package, version in (manifest.versions if manifest else {}).items():
            found.setdefault(package, set()).update(version.split(VERSIONS))
    return {package: ", ".join(sorted(versions)) for package, versions in found.items()}
