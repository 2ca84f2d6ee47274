"""Checks of the recipe's part about raw data that open no file."""

import os
from collections.abc import Collection, Mapping, Sequence

from sipo_pl.messages.errors import SettingError, UserError, nearest
from sipo_pl.recipe.hub_names import is_hub_name, parse_hub_name
from sipo_pl.recipe.recipe import Recipe


def check_data(recipe: Recipe) -> None:
    """Check sources, draws, mixture and what `compat` says of them.

    Raises:
        SettingError: naming the key, what was found and what was expected.
    """
    for split in ("train", "validation", "test"):
        _check_sources(f"data.{split}", recipe.data.files(split), recipe.objective_names)
    _check_splits(recipe)
    data = recipe.data
    share = data.mixture.share
    if share is not None and not 0 <= share <= 1:
        raise SettingError("data.mixture.share", f"expected a share from 0 to 1, found {share:g}")
    counts = {
        "data.max_length": data.max_length,
        "data.test_first": data.test_first,
        "data.test_last": data.test_last,
        "compat.map_batch": recipe.compat.map_batch,
        "compat.map_shards": recipe.compat.map_shards,
    }
    for key, count in counts.items():
        if count is not None and count < 1:
            raise SettingError(key, f"must be at least 1, found {count}")


def _check_sources(key: str, files: Sequence[str] | Mapping[str, Sequence[str]], objectives: Collection[str]) -> None:
    groups = files if isinstance(files, Mapping) else {}
    for name in groups:
        if name not in objectives:
            raise SettingError(key, f"no objective {name!r}{nearest(name, objectives)}")
    for name in objectives:
        if groups and not groups.get(name):
            raise SettingError(key, f"names no file for objective {name!r}")
    for group in groups.values() if groups else [files]:
        _check_once(key, list(group))
    for source in [one for group in groups.values() for one in group] or files:
        if is_hub_name(source):
            try:
                parse_hub_name(source)
            except UserError as error:
                raise SettingError(key, str(error)) from None


def _check_once(key: str, sources: Sequence[str]) -> None:
    """Refuse a file that is listed twice, under whatever spelling: each of its pairs would be there four times."""
    seen: dict[str, str] = {}
    for source in sources:
        place = source if is_hub_name(source) else os.path.realpath(source)
        if place in seen:
            what = f"{source} twice" if seen[place] == source else f"{seen[place]} and {source}, which are one file"
            raise SettingError(key, f"names {what}: every row of it would count twice")
        seen[place] = source


def _check_splits(recipe: Recipe) -> None:
    data = recipe.data
    if not data.train:
        raise SettingError("data.train", "names no file")
    share = data.validation_share
    if share is None and not data.validation:
        raise SettingError("data.validation", "names no file; data.validation_share draws it from train")
    if share is not None and data.validation:
        raise SettingError("data.validation_share", "data.validation names files already; leave one of them out")
    if share is not None and not 0 < share < 1:
        raise SettingError("data.validation_share", f"expected a share between 0 and 1, found {share:g}")
    for key in ("test_first", "test_last"):
        if getattr(data, key) is not None and not data.test:
            raise SettingError(f"data.{key}", "data.test names no file to take them from")
    if data.test_first is not None and data.test_last is not None:
        raise SettingError("data.test_last", "data.test_first is given already; leave one of them out")
