"""A text is taken as it is written: what `sipo_pl.interop.jsonargparse` mends of jsonargparse's reader of values."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonargparse import ActionConfigFile, ArgumentParser, _typehints

from sipo_pl.interop import jsonargparse as interop
from sipo_pl.recipe.config.command_parser import recipe_parser
from sipo_pl.recipe.config.overrides import Overrides

LOOKS_LIKE_YAML = ("null", '"null"', "1", "1e-4", "true", "no", "~", "# x", "### Human: {raw_prompt}\n### A:", "a: b")
LOOKS_LIKE_YAML += ("{x}", "[1]", "- x", "--x", "'q'", '"', "é", "2026-07-26", " x ", "*a", "&a", "a #b", "x:", "|")
TEXTS = st.sampled_from(LOOKS_LIKE_YAML) | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))


@dataclass
class Item:
    """One of a list.

    Args:
        text: a text
        free: a component
    """

    text: str | None = "default"
    free: dict[str, Any] | None = None


@dataclass
class Part:
    """Texts of every type.

    Args:
        text: a text or nothing
        plain: a text
        kind: a text or a listed word
        items: objects
    """

    text: str | None = "default"
    plain: str = "default"
    kind: Literal["a"] | str | None = None
    items: list[Item] = field(default_factory=list)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_class_arguments(Part, "part", sub_configs=True)
    return parser


def test_the_reader_of_values_is_the_mended_one() -> None:
    assert _typehints.ActionTypeHint._check_type is interop._check_type
    assert _typehints.adapt_typehints is interop._adapt_value  # which calls itself by this name
    assert _typehints.accepts_any_value(Any)
    assert not _typehints.accepts_any_value(str)
    kinds = {action.dest: type(action) for action in interop.parser_actions(_parser())}
    assert kinds["part.text"] is _typehints.ActionTypeHint


@settings(deadline=None, max_examples=25)
@given(TEXTS)
@example("# x")
def test_a_text_of_a_file_is_read_and_dumped_as_it_is(text: str) -> None:
    items = [
        {
            "text": text,
            "free": {"class_path": "argparse.Namespace", "init_args": {"t": text, "more": [text, {"t": text}]}},
        }
    ]
    values = {"part": {"text": text, "plain": text, "kind": text, "items": items}}
    parser = _parser()
    parsed = parser.parse_object(copy.deepcopy(values))

    assert [parsed.part[key] for key in ("text", "plain", "kind")] == [text] * 3
    assert parsed.part["items"][0].text == text
    assert parsed.part["items"][0].free == items[0]["free"]
    assert yaml.safe_load(parser.dump(parsed)) == values
    again = parser.parse_string(parser.dump(parsed))
    assert yaml.safe_load(parser.dump(again)) == values


@settings(deadline=None, max_examples=25)
@given(TEXTS)
def test_a_text_of_an_overlay_is_read_as_it_is(text: str) -> None:
    arguments = {"class_path": "argparse.Namespace", "init_args": {"t": text}}
    given_values = (("recipe", "template.text", text), ("recipe", "run_dir", text), ("recipe", "name", text))
    given_values += (("recipe", "divergence", arguments), ("recipe", "data.converter.init_args.t", text))
    found = _recipe(Overrides(given_values).recipe_options())

    assert [found.template.text, found.run_dir, found.name] == [text] * 3
    assert found.divergence == arguments
    assert found.data.converter["init_args"]["t"] == text


@pytest.mark.parametrize("text", [one for one in LOOKS_LIKE_YAML if "null" not in one])
def test_a_text_of_a_setting_is_read_as_it_is(text: str) -> None:
    changes = Overrides.gather([], [f"recipe.template.system={text}", f"recipe.run_dir={text}"], None)
    found = _recipe(changes.recipe_options())

    assert [found.template.system, found.run_dir] == [text, text]


def test_an_option_says_null_by_the_bare_word() -> None:
    words = ["recipe.run_dir=null", 'recipe.template.text="null"', "recipe.limit=null", "recipe.name=null"]
    found = _recipe(Overrides.gather([], [*words, "recipe.stages={sft: true}"], None).recipe_options())

    assert (found.run_dir, found.template.text, found.limit, found.name) == (None, "null", None, "null")
    assert found.stages == {"sft": True}


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("true", True), ("null", None), ("[1, a]", [1, "a"]), ("'3'", "3"), ("# x", "# x")]
)
def test_an_option_of_no_known_type_is_yaml_of_one_line(text: str, value: object) -> None:
    found = _recipe(["--data.converter.init_args.k", text])

    assert found.data.converter["init_args"] == {"k": value}
    assert found.data.converter["class_path"]


def test_an_overlay_in_a_file_keeps_texts_and_dates(tmp_path: Path) -> None:
    file = tmp_path / "over.yaml"
    file.write_text('recipe: {template: {date: 2026-07-26, text: "### {raw_prompt}"}, run_dir: "null"}', "utf-8")
    found = _recipe(Overrides.gather([str(file)], [], None).recipe_options())

    assert (found.template.date, found.template.text) == ("2026-07-26", "### {raw_prompt}")
    assert found.run_dir == "null"


def _recipe(words: list[str]) -> Any:
    return recipe_parser().parse_args(["--config", "quickstart/recipe.yaml", *words])


def test_objectives_of_an_option_keep_their_texts() -> None:
    objectives = [{"name": "a", "column": "# of facts"}, {"name": "b", "column": "null"}]
    found = _recipe(Overrides.gather([], [f"recipe.objectives={json.dumps(objectives)}"], None).recipe_options())

    assert [one.column for one in found.objectives] == ["# of facts", "null"]


class Named:
    """What a user chooses a class of.

    Args:
        name: a text
        count: a number
        pair: two numbers
    """

    def __init__(self, name: str | None = None, count: int = 0, pair: tuple[float, float] = (0, 1)) -> None:
        self.name, self.count, self.pair = name, count, pair


@dataclass
class Mixed:
    """Texts beside other types.

    Args:
        named: an object
        folder: a text or a path
        devices: a list, a text or a number
        either: a mapping or a text
    """

    named: Named | None = None
    folder: str | Path | None = None
    devices: list[int] | str | int = "auto"
    either: dict[str, str] | str | None = None


@settings(deadline=None, max_examples=25)
@given(TEXTS.filter(lambda text: not interop.NULL.fullmatch(text)))
@example("# x")
@example("a: b")
def test_an_argument_of_a_chosen_class_is_the_text(text: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Mixed, "part")
    found = parser.parse_args(
        [
            f"--part.named={Named.__module__}.Named",
            f"--part.named.init_args.name={text}",
            "--part.named.init_args.count=3",
            "--part.named.init_args.pair=[0.5, 1e-4]",
            f"--part.folder={text}",
        ]
    )
    assert found.part.named.init_args.name == text
    assert (found.part.named.init_args.count, found.part.named.init_args.pair) == (3, (0.5, 1e-4))
    assert found.part.folder == text
    assert yaml.safe_load(parser.dump(found))["part"]["folder"] == text
    assert type(found.part.folder) is str


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("devices=# x", "# x"),
        ("devices=a: b", "a: b"),
        ("devices=[0, 1]", [0, 1]),
        ("devices=auto", "auto"),
        ("either=a: b", {"a": "b"}),
        ("either={a: b}", {"a": "b"}),
        ("either=b", "b"),
    ],
)
def test_a_text_beside_other_types_loses_nothing(option: str, value: object) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Mixed, "part")
    assert parser.parse_args([f"--part.{option}"]).part[option.partition("=")[0]] == value


def test_an_argument_of_a_chosen_class_says_null_as_options_do() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Mixed, "part")
    for text, value in (("null", None), ('"null"', "null")):
        words = [f"--part.named={Named.__module__}.Named", f"--part.named.init_args.name={text}"]
        assert parser.parse_args(words).part.named.init_args.name == value
