"""The fragment of all accidents names each of them, and each replaces its part of the method."""

import inspect
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import pytest
import yaml

from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.components import import_class
from sipo_pl.recipe.parts import RELEASED, chosen_part

PAPER = Path(__file__).parents[2] / "configs/compat/paper.yaml"


def test_the_fragment_switches_every_accident_on() -> None:
    named = yaml.safe_load(PAPER.read_text())["recipe"]["compat"]
    assert named == {key: value for key, value in named.items() if value not in (False, None)}
    assert set(named) == {field.name for field in fields(Compat)}
    Compat(**named)


def test_all_is_off_by_default() -> None:
    assert set(asdict(Compat()).values()) <= {False, None, 1}


ASKED = {"truncate_sft", "no_final_validation", "merged_reference"}  # where what they change stands


def test_each_accident_replaces_a_part_or_is_asked_for_in_its_place() -> None:
    replacing = {name for one in RELEASED.values() for name in (one.switch, *one.settings)}
    assert replacing | ASKED == {field.name for field in fields(Compat)}
    assert not replacing & ASKED


@pytest.mark.parametrize("name", RELEASED)
def test_a_part_is_replaced_where_its_switch_is_on_and_is_called_alike(name: str) -> None:
    part, replacement = import_class(f"sipo_pl.{name}"), RELEASED[name]
    assert chosen_part(part, Compat()) is part
    found = chosen_part(part, Compat(**{replacement.switch: 4 if replacement.settings else True}))
    released = found.func if isinstance(found, partial) else found
    assert released.__module__.startswith("sipo_pl.released.")
    if isinstance(part, type):
        assert issubclass(released, part)
        return
    own, other = (list(inspect.signature(one).parameters.values()) for one in (part, released))
    assert [one.kind for one in own] == [one.kind for one in other if one.name not in replacement.settings]
