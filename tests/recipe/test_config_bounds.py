"""Config files that would hang the reader: one line with file and line."""

from pathlib import Path

import pytest

from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.config.files import LARGEST, entries, load_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
LAUGHS += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a\n  b: *a\n", "bad.yaml:1: values stand more than"),
        ("a: &a\n  <<: *a\n", "bad.yaml:1: values stand more than"),
        (f"a:\n  {'[' * 60}{']' * 60}\n", "bad.yaml:2: values stand more than"),
        (f"a: {'[' * 1500}", "bad.yaml: values stand more than"),
        (LAUGHS, "where an alias counts as all that it stands for"),
        (f"a: {'x' * LARGEST}", "a config file has at most"),
        ("seed: 1\nrecipe: bad.yaml\n", "bad.yaml:2: recipe: "),
        ("data: other.yaml\n", "other.yaml:1: more: "),
    ],
)
def test_what_would_hang_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    (tmp_path / "other.yaml").write_text("more: bad.yaml\n", encoding="utf-8")

    with pytest.raises(UsageError) as caught:
        _read(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def _read(file: Path) -> None:
    load_yaml(file)
    list(entries(file))


def test_a_file_may_be_named_twice(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("x: 1\n", encoding="utf-8")
    file = tmp_path / "whole.yaml"
    file.write_text("a: part.yaml\nb: part.yaml\n", encoding="utf-8")

    assert [entry.key for entry in entries(file)] == ["a", "a.x", "b", "b.x"]
