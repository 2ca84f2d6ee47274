"""What a converter returns, checked: a class of the user's own may return anything."""

import math
import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, cast

from sipo_pl.data.checks import MESSAGE_KEYS, wrong
from sipo_pl.data.converters.base import Converted, Converter
from sipo_pl.data.rows import PairRow, PromptRow
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Objective

KEY = "data.converter"


def checked_pairs(found: Any, converter: Converter, method: str, objectives: Sequence[Objective]) -> Converted[PairRow]:
    """Return the pairs of a converter, with whole numbers in place of those of other libraries.

    Raises:
        UserError: something else than pairs; the message names class, row and key.
    """
    where = f"{KEY}: {type(converter).__name__}.{method}"
    rows, dropped, slots = _converted(found, where)
    seen: set[str] = set()
    for place, row in enumerate(rows):
        at = f"{where}: row {place}"
        _texts(row, ("pair_id", "prompt_id", "response_0", "response_1"), at)
        _prompt(row, at)
        if row["pair_id"] in seen:
            raise wrong(at, "pair_id", "an id that no other pair has", row["pair_id"])
        seen.add(row["pair_id"])
        row["preferred"] = _preferred(row, objectives, at)
        if "scores" in row:
            row["scores"] = _scores(row, at)
    return Converted(cast("list[PairRow]", rows), dropped, slots)


def checked_prompts(found: Any, converter: Converter) -> Converted[PromptRow]:
    """Return the prompts of a converter; else like `checked_pairs`."""
    where = f"{KEY}: {type(converter).__name__}.prompts"
    rows, dropped, slots = _converted(found, where)
    for place, row in enumerate(rows):
        _texts(row, ("prompt_id",), f"{where}: row {place}")
        _prompt(row, f"{where}: row {place}")
    return Converted(cast("list[PromptRow]", rows), dropped, slots)


def _converted(found: Any, where: str) -> Converted[dict[str, Any]]:
    if not isinstance(found, Converted):
        raise UserError(f"{where}: expected a Converted of rows and counts, found {type(found).__name__}")
    rows, dropped, slots = found
    if not isinstance(rows, list):
        raise UserError(f"{where}: expected a list of rows, found {type(rows).__name__}")
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{where}: row {place}: expected a dict, found {type(row).__name__}")
    if slots is not None and len(slots) != len(rows):
        raise UserError(f"{where}: expected {len(rows)} slots, one for each row, found {len(slots)}")
    return Converted(cast("list[dict[str, Any]]", rows), dropped, slots)


def _texts(row: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in keys:
        if not isinstance(row.get(key), str):
            raise wrong(where, key, "text", row.get(key))


def _prompt(row: Mapping[str, Any], where: str) -> None:
    prompt = row.get("prompt")
    messages = prompt if isinstance(prompt, list) and prompt else []
    sound = all(isinstance(one, dict) and all(isinstance(one.get(k), str) for k in MESSAGE_KEYS) for one in messages)
    if not isinstance(prompt, str) and not (messages and sound):
        raise wrong(where, "prompt", "text or a list of chat messages", prompt)


def _preferred(row: Mapping[str, Any], objectives: Sequence[Objective], where: str) -> dict[str, int]:
    found = row.get("preferred")
    if not isinstance(found, Mapping):
        raise wrong(where, "preferred", "an index for each objective", found)
    made: dict[str, int] = {}
    for one in objectives:
        value = found.get(one.name)
        try:
            made[one.name] = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            made[one.name] = 2
        if made[one.name] not in (0, 1, -1) or isinstance(value, bool):
            raise wrong(where, f"preferred.{one.name}", "0, 1, or -1 for a tie", value)
    return made


def _scores(row: Mapping[str, Any], where: str) -> dict[str, list[float]]:
    found = row["scores"]
    if not isinstance(found, Mapping):
        raise wrong(where, "scores", "two numbers for each objective", found)
    made: dict[str, list[float]] = {}
    for name, values in found.items():
        numbers = list(values) if isinstance(values, list | tuple) or hasattr(values, "tolist") else []
        if len(numbers) != 2 or not all(isinstance(one, Real) and math.isfinite(one) for one in numbers):
            raise wrong(where, f"scores.{name}", "two finite numbers", values)
        made[str(name)] = [float(one) for one in numbers]
    return made
