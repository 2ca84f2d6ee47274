"""Config files by path, or by the bare name of a shipped one, such as `quickstart/align.yaml`."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sipo_pl.errors import UsageError, nearest


def find_config(name: str) -> Path:
    """Return the path of a config file: as given, or below the shipped configs.

    Raises:
        UsageError: no such file, with the nearest shipped name.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = Path(str(resources.files("sipo_pl.configs")))
    if (shipped / name).is_file():
        return shipped / name
    known = [str(path.relative_to(shipped)) for path in shipped.rglob("*.yaml")]
    raise UsageError(f"--config {name}: no such file{nearest(name, known)}")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; UsageError names file, line and column of a fault."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise UsageError(f"{path}{where}: not YAML: {error.problem}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected keys and values, found {type(value).__name__}")
    return value


def key_line(path: Path, dotted: str) -> int | None:
    """Return the line of a key, such as ``model.beta``, in a YAML file; None where it is not there."""
    node = yaml.compose(path.read_text(encoding="utf-8"))
    line = None
    for part in dotted.split("."):
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((key, value) for key, value in node.value if key.value == part), None)
        if found is None:
            return None
        line, node = found[0].start_mark.line + 1, found[1]
    return line
