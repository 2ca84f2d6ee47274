"""Command recipes: the shipped recipes, and a copy of one to begin with."""

import shutil
from importlib import resources
from pathlib import Path

from sipo_pl.messages.errors import UsageError, UserError, nearest
from sipo_pl.storage.files import atomic_path


def recipes(copy: str | None = None, out: str | None = None) -> None:
    """List the shipped recipes, or copy one.

    Args:
        copy: name of the recipe to be copied with all its files
        out: folder to be made; one of the recipe's name where not given
    """
    shipped = Path(str(resources.files("sipo_pl.configs")))
    found = {path.parent.name: path for path in sorted(shipped.glob("*/recipe.yaml"))}
    if copy is None:
        if out is not None:
            raise UsageError("--out belongs to --copy")
        for name, path in found.items():
            print(f"{name:<14}{_told(path)}")
        print("\nsipo_pl recipes --copy NAME copies one; sipo_pl run --config NAME/recipe.yaml runs it as it is")
        return
    if copy not in found:
        raise UsageError(f"--copy: no recipe {copy!r}{nearest(copy, found)}")
    folder = Path(out or copy)
    if folder.exists():
        raise UserError(f"{folder}: is there already; --out names another folder")
    with atomic_path(folder) as aside:
        shutil.copytree(found[copy].parent, aside, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    print(f"{folder}: sipo_pl run --config {folder / 'recipe.yaml'} --dry_run shows its stages")


def _told(path: Path) -> str:
    """Return what the comments at the top of a recipe say of it, less the command of the first line."""
    told = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        told.append(line.lstrip("# "))
    return " ".join(line for line in told[1:] if line).partition(". ")[0]
