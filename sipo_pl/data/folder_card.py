"""A README.md in each stage folder of rows: what the rows are, and how the library datasets reads them.

`datasets.load_dataset(folder)` finds files and types in the README's metadata; without it, it would read the manifest
and tables as rows too.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sipo_pl.registry import STAGES
from sipo_pl.storage.files import atomic_path
from sipo_pl.storage.json_lines import read_jsonl

README = "README.md"
Tables = Mapping[str, Mapping[str, str]]  # name of a table -> split -> file or pattern; the first is the usual one

_SCALARS = {bool: "bool", int: "int64", float: "float64", str: "string"}
_UNITS = {"default": {"train": "unit-*.jsonl"}}


def write_folder_card(folder: Path, tables: Tables = _UNITS) -> None:
    """Write the README.md of a stage folder.

    Args:
        folder: whose name begins with the stage's.
        tables: where its rows are; the units of a prediction stage where not given.
    """
    stage = folder.name
    known = STAGES.get(stage.partition("-")[0])
    rows_said = (known and known.rows) or "Rows of a stage of sipo_pl."
    configs: list[dict[str, Any]] = []
    infos: list[dict[str, Any]] = []
    for name, splits in tables.items():
        rows = [row for pattern in splits.values() for file in sorted(folder.glob(pattern)) for row in read_jsonl(file)]
        files = [{"split": split, "path": pattern} for split, pattern in splits.items() if any(folder.glob(pattern))]
        if not rows:
            continue
        configs.append({"config_name": name, "data_files": files, **({} if configs else {"default": True})})
        if (features := _features(rows)) is not None:
            infos.append({"config_name": name, "features": features})
    metadata = yaml.safe_dump({"configs": configs, "dataset_info": infos}, sort_keys=False, allow_unicode=True)
    names = [str(config["config_name"]) for config in configs]
    others = "".join(f', or `load_dataset(FOLDER, "{name}")`' for name in names[1:])
    text = (
        f"# {stage}\n\n{rows_said}\n\n"
        f"Read with `datasets.load_dataset(FOLDER)`{others}. `manifest.json` tells what made the folder; the rows are "
        "described in data_formats.md of sipo_pl.\n"
    )
    with atomic_path(folder / README) as aside:
        aside.write_text(f"---\n{metadata}---\n\n{text}", encoding="utf-8")


def _features(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the columns and their types as the metadata of datasets has them; none where a column mixes types."""
    try:
        kind = _merged([_kind(dict(row)) for row in rows])
    except TypeError:
        return None
    return [_named(name, kind[name]) for name in kind]


def _kind(value: Any) -> Any:
    """Return the type of a JSON value: a scalar's name, [item type], {key: type}, or None where it is not known."""
    if isinstance(value, dict):
        return {key: _kind(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_merged([_kind(item) for item in value])]
    return None if value is None else _SCALARS[type(value)]


def _merged(kinds: list[Any]) -> Any:
    """Return the type that holds all of `kinds`; TypeError where there is none."""
    known = [kind for kind in kinds if kind is not None]
    if not known:
        return None
    if all(isinstance(kind, dict) for kind in known):
        keys = dict.fromkeys(key for kind in known for key in kind)
        return {key: _merged([kind.get(key) for kind in known]) for key in keys}
    if all(isinstance(kind, list) for kind in known):
        return [_merged([kind[0] for kind in known])]
    scalars = {kind for kind in known if isinstance(kind, str)}
    if len(scalars) < len(set(map(type, known))) or scalars not in ({known[0]}, {"int64", "float64"}):
        raise TypeError(f"mixed types: {known}")
    return "float64" if len(scalars) > 1 else known[0]


def _named(name: str, kind: Any) -> dict[str, Any]:
    if isinstance(kind, dict):
        return {"name": name, "struct": [_named(key, item) for key, item in kind.items()]}
    if isinstance(kind, list):
        item = kind[0]
        nested = [_named(key, one) for key, one in item.items()] if isinstance(item, dict) else item or "string"
        return {"name": name, "list": nested}
    return {"name": name, "dtype": kind or "string"}
