from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipo_pl.messages.errors import UserError
from sipo_pl.text.prompts.files import fill, heading_of, read_prompt_file


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "ask.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_blanks_around_the_text_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "\n {a} and {b}\n\n")
    assert read_prompt_file(path, {"a"}, {"b", "c"}) == "{a} and {b}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{a}\n{respons}", r"ask\.txt: line 2: unknown placeholder \{respons\}; did you mean 'response'\?"),
        ("nothing", r"ask\.txt: no placeholder \{a\}, \{response\}; it must hold \{a\}, \{response\}"),
        ("", r"ask\.txt: empty; expected a prompt with \{a\}, \{response\}"),
        (b"{a} \xff", r"ask\.txt: not UTF-8 text: invalid start byte at byte 4"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_prompt_file(write(tmp_path, content), {"a", "response"}, set())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt: cannot be read: No such file"):
        read_prompt_file(tmp_path / "gone.txt", {"a"}, set())
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_prompt_file(tmp_path, {"a"}, set())


def test_braces_around_anything_but_a_name_are_plain_text(tmp_path: Path) -> None:
    content = 'A list: {"x": 1}, {}, {1}, { a }; {a}'
    assert fill(read_prompt_file(write(tmp_path, content), {"a"}, set()), {"a": "!"}) == content.replace("{a}", "!")


@given(st.text(alphabet="{}ab \\\n"), st.text(alphabet="{}ab \\\n"))
def test_filling_is_one_pass(a: str, b: str) -> None:
    assert fill("<{a}|{b}|{a}>", {"a": a, "b": b}) == f"<{a}|{b}|{a}>"


@pytest.mark.parametrize(
    ("text", "cut", "kept"),
    [
        ("Q: {prompt}", ["x\nQ: y", "x\n  Q: y"], ["x Q: y", "x\nSQ: y"]),
        ("## Ask\n\n{prompt}", ["x\n## Ask\ny", "x\n ## Ask "], ["x\n## Ask me\ny", "x ## Ask"]),
    ],
)
def test_a_heading_counts_at_the_start_of_a_line(text: str, cut: list[str], kept: list[str]) -> None:
    heading = heading_of(text, "prompt", "ask.txt")
    assert all(heading.search(generated) for generated in cut)
    assert not any(heading.search(generated) for generated in kept)


@pytest.mark.parametrize("text", ["{prompt}", "\n\n{prompt}", "{response}\n{prompt}", "{response} {prompt}"])
def test_a_question_without_heading_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"ask\.txt: \{prompt\} needs a heading"):
        heading_of(text, "prompt", "ask.txt")
