from typing import Any

import pytest

from sipo_pl.data.converters.base import Converter
from sipo_pl.data.converters.helpsteer import HelpSteer
from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.components import instantiate

HELPSTEER = "sipo_pl.data.converters.helpsteer.HelpSteer"


def make(class_path: str, **arguments: Any) -> Converter:
    return instantiate({"class_path": class_path, "init_args": arguments}, Converter, "data.converter")  # type: ignore[type-abstract]


def test_a_class_is_made_with_its_arguments() -> None:
    made = make(HELPSTEER, response="answer")
    assert isinstance(made, HelpSteer)
    assert made.response_column == "answer"


@pytest.mark.parametrize(
    ("class_path", "arguments", "message"),
    [
        ("HelpSteer", {}, r"data\.converter\.class_path 'HelpSteer'"),
        (
            "sipo_pl.data.no_such.HelpSteer",
            {},
            r"data\.converter\.class_path .*No module named 'sipo_pl\.data\.no_such'",
        ),
        (f"{HELPSTEER[:-1]}", {}, "has no 'HelpStee'; did you mean 'HelpSteer'"),
        ("sipo_pl.recipe.recipe.Recipe", {}, r"'sipo_pl\.recipe\.recipe\.Recipe': not a Converter"),
        (HELPSTEER, {"respons": "x"}, r"data\.converter\.init_args: .*'respons'"),
    ],
)
def test_a_wrong_component_names_the_key(class_path: str, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(class_path, **arguments)
