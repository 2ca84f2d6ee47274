"""Numbers with bounds, as types of settings: the parser checks them, and `--help` shows them, such as ``int>=1``.

What a parser makes of them are plain numbers. Type checkers see int and float.
"""

import math
import operator
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from jsonargparse.typing import register_type

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def _bounded(base: type, **bounds: float) -> Any:
    """Return a type of finite numbers.

    Args:
        base: int or float.
        bounds: `above` and `least` from below, `below` and `most` from above.
    """
    signs = {"above": ">", "least": ">=", "below": "<", "most": "<="}
    limits = [(signs[name], bound) for name, bound in bounds.items()]
    shown = " and ".join(f"{sign}{bound}" for sign, bound in limits) or "finite"

    def read(value: Any) -> float:
        """Return the plain number; ValueError where the value is none, or not within the bounds."""
        try:
            if isinstance(value, bool) or (base is int and isinstance(value, float) and not value.is_integer()):
                raise ValueError
            number: float = base(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"Expected a {base}. Got value: {value}") from None
        if not math.isfinite(number) or not all(_COMPARE[sign](number, bound) for sign, bound in limits):
            raise ValueError(f"{value} does not conform to restriction v{shown}")
        return number

    kind = type(f"{base.__name__} {shown}" if not limits else f"{base.__name__}{shown}", (base,), {"read": read})
    register_type(kind, base, read, type_check=lambda value, kind: False)  # even a plain number is to be checked
    return kind


def bounded_type(annotation: Any) -> Any:
    """Return the bounded type of an annotation, which may be optional; None where it has none."""
    return next((one for one in (annotation, *get_args(annotation)) if hasattr(one, "read")), None)


def in_words(name: str) -> str:
    """Return the name of a bounded type as it reads in a message, such as `a number >0`; another name as it is."""
    return re.sub(r"^(?:int|float) ?(?=[<>])", "a number ", name)


def problem_of(annotation: Any, value: object) -> str | None:
    """Return what is wrong with a number that an argument of a class is given; None where nothing is."""
    kind = bounded_type(annotation)
    if kind is None or (value is None and type(None) in get_args(annotation)):
        return None
    if isinstance(value, str) and str in get_args(annotation):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"expected {in_words(kind.__name__)}, found {value!r}"
    try:
        kind.read(value)
    except ValueError:
        return f"expected {in_words(kind.__name__)}, found {value!r}"
    return None


if TYPE_CHECKING:
    PositiveInt = int
    NonNegativeInt = int
    IntFromTwo = int
    Rounds = int
    Seed = int
    Port = int
    PositiveFloat = float
    NonNegativeFloat = float
    FiniteFloat = float
    Share = float
    ShareBelowOne = float
    OpenShare = float
    PositiveShare = float
    GridStep = float
else:
    PositiveInt = _bounded(int, above=0)
    NonNegativeInt = _bounded(int, least=0)
    IntFromTwo = _bounded(int, least=2)
    Rounds = _bounded(int, least=1, most=100)  # each is a dozen stages
    Seed = _bounded(int, least=0, below=2**32)  # as numpy takes it
    Port = _bounded(int, least=0, below=2**16)
    PositiveFloat = _bounded(float, above=0)
    NonNegativeFloat = _bounded(float, least=0)
    FiniteFloat = _bounded(float)
    Share = _bounded(float, least=0, most=1)
    ShareBelowOne = _bounded(float, least=0, below=1)
    OpenShare = _bounded(float, above=0, below=1)
    PositiveShare = _bounded(float, above=0, most=1)
    GridStep = _bounded(float, least=0.001, most=0.5)
