"""What a reward returns, taken as numbers: lists, arrays of numpy and tensors of torch alike."""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.components import own_code
from sipo_pl.rewards.base import Reward
from sipo_pl.text.prompt import TextRow

_SHOWN = 60


def measured(reward: Reward, rows: Sequence[TextRow], key: str) -> list[float]:
    """Return a reward's numbers of the rows, in order.

    Args:
        reward: may be a class of the user's own.
        rows: what is measured.
        key: config key of the reward, for errors.

    Raises:
        UserError: it fails, returns another count or something else than finite numbers.
    """
    with own_code(key, reward, "score"):
        found: Any = reward.score(rows)
    where = f"{key}: {type(reward).__name__}.score"
    values = found.tolist() if hasattr(found, "tolist") else found  # an array or a tensor
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise UserError(f"{where}: expected a list of {len(rows)} numbers, found {_kind(found)}")
    listed = list(values)
    if len(listed) != len(rows):
        raise UserError(f"{where}: expected {len(rows)} numbers, one for each response, found {len(listed)}")
    return [_number(value, row, where) for value, row in zip(listed, rows, strict=True)]


def _number(value: Any, row: TextRow, where: str) -> float:
    one = value
    if hasattr(one, "tolist"):  # a number of numpy or torch
        one = one.tolist()
    while isinstance(one, list | tuple) and len(one) == 1:  # a column of one number a row
        one = one[0]
    shown = f"for the response {row.response[:_SHOWN]!r}"
    if not isinstance(one, Real | Decimal):
        raise UserError(f"{where}: expected a number {shown}, found {_kind(value)}")
    try:
        number = float(one)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{where}: the reward is {number} {shown}")
    return number


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= _SHOWN else f'{text[:_SHOWN]}…'}"
