"""What `sipo_pl.interop.jsonargparse` takes for granted of jsonargparse: its options, and each of its messages."""

import argparse
import re
from pathlib import Path
from typing import Literal

import pytest
from jsonargparse import ArgumentParser
from jsonargparse.typing import Path_fr, PositiveInt

from sipo_pl.interop import jsonargparse as interop


class Base:
    """A class that an option may name.

    Args:
        size: a number
    """

    def __init__(self, size: int = 1) -> None:
        self.size = size


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--count", type=PositiveInt, default=1)
    parser.add_argument("--number", type=float | None)
    parser.add_argument("--kind", type=Literal["a", "b"])
    parser.add_argument("--file", type=Path_fr)
    parser.add_argument("--part", type=Base)
    parser.add_argument("--needed", type=int, required=True)
    return parser


def test_options_and_types(parser: ArgumentParser) -> None:
    options = interop.parser_options(parser)

    assert options["number"] == float | None
    assert {"count", "kind", "file", "part", "needed"} <= options.keys()
    assert "help" not in options
    assert [interop.type_of(one) for one in interop.parser_actions(parser) if one.dest == "count"] == [PositiveInt]


@pytest.mark.parametrize(
    ("words", "pattern", "found"),
    [
        (["--count", "0"], interop.RESTRICTED, {"value": "0", "limit": ">0"}),
        (["--count", "0"], interop.KEY, {"key": "count"}),
        (["--number", "x"], interop.VALUE, {"value": "x"}),
        (["--number", "x"], interop.UNION, {}),
        (["--kind", "c"], interop.LITERAL, {}),
        (["--needed", "x"], interop.TYPE, {"type": "<class 'int'>"}),
        (["--file", "/no/such"], interop.NO_FILE, {"path": "'/no/such'"}),
        (["--part", "argparse.NoSuch"], interop.NO_CLASS, {"module": "argparse", "name": "NoSuch"}),
        (["--part", "no_such.Part"], interop.NO_MODULE, {"name": "no_such"}),
        (["--part", f"{__name__}.Base", "--part.sise", "2"], interop.NO_ARGUMENT, {"name": "sise"}),
        (["--no_such", "1"], interop.UNKNOWN, {"option": "--no_such"}),
    ],
)
def test_a_message_is_read(
    parser: ArgumentParser, words: list[str], pattern: re.Pattern[str], found: dict[str, str]
) -> None:
    needed = [] if "--needed" in words else ["--needed", "1"]
    with pytest.raises(argparse.ArgumentError) as caught:
        parser.parse_args([*needed, *words])

    match = pattern.search(str(caught.value.message))
    assert match, str(caught.value.message)
    assert {name: match[name] for name in found} == found


def test_what_is_missing_is_read(parser: ArgumentParser) -> None:
    with pytest.raises(argparse.ArgumentError) as caught:
        parser.parse_args([])

    text = str(caught.value.message)
    assert interop.MISSING.search(text) or interop.KEY.search(text), text


def test_a_config_that_is_not_there_is_read(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Base, "base", sub_configs=True)
    with pytest.raises(argparse.ArgumentError) as caught:
        parser.parse_args(["--base", str(tmp_path / "no.yaml")])

    assert interop.NO_CONFIG.search(str(caught.value.message)), str(caught.value.message)
