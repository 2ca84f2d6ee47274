"""The fragment of all accidents names each of them."""

from dataclasses import asdict, fields
from pathlib import Path

import yaml

from sipo_pl.recipe.compat import Compat

PAPER = Path(__file__).parents[1] / "configs/compat/paper.yaml"


def test_the_fragment_switches_every_accident_on() -> None:
    named = yaml.safe_load(PAPER.read_text())["recipe"]["compat"]
    assert named == {key: value for key, value in named.items() if value not in (False, None)}
    assert set(named) == {field.name for field in fields(Compat)}
    Compat(**named)


def test_all_is_off_by_default() -> None:
    assert set(asdict(Compat()).values()) <= {False, None, 1}
