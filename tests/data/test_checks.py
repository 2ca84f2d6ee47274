from typing import Any

import pytest

from sipo_pl.data.checks import is_empty, number_field, prompt_field, text_field
from sipo_pl.messages.errors import UserError

USER = {"role": "user", "content": "hi"}


def located(value: Any) -> tuple[str, dict[str, Any]]:
    return "train.jsonl:17", {"field": value}


def test_good_fields_pass() -> None:
    assert text_field(located(""), "field") == ""
    assert number_field(located(3), "field") == 3.0
    assert number_field(located(-0.5), "field") == -0.5
    assert prompt_field(located("hi"), "field") == "hi"
    messages = [{"role": "system", "content": ""}, USER, {"role": "assistant", "content": "yes?"}, USER]
    assert prompt_field(located(messages), "field") == messages
    parts = [{"type": "text", "text": "h", "image": None}, {"type": "text", "text": "i"}]  # as tables fill them
    assert prompt_field(located([{"role": "user", "content": parts}]), "field") == [USER]


@pytest.mark.parametrize("read", [text_field, number_field, prompt_field])
def test_a_missing_key_suggests_the_nearest(read: Any) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl:17: no key 'fields'; did you mean 'field'\?"):
        read(located(1), "fields")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("3", 'a number, found the string "3"'),
        (True, "a number, found the boolean true"),
        (None, "a number, found null"),
        ([1], "a number, found the list"),
        (float("nan"), "a finite number, found the number NaN"),
        (float("inf"), "a finite number, found the number Infinity"),
        (10**400, "a finite number, found the number 1000"),
    ],
)
def test_a_score_is_a_finite_number(value: Any, found: str) -> None:
    with pytest.raises(UserError, match=rf"train\.jsonl:17: key 'field': expected {found}"):
        number_field(located(value), "field")


@pytest.mark.parametrize(("value", "found"), [(3, "the number 3"), (None, "null"), (["a"], "the list")])
def test_a_text_is_a_string(value: Any, found: str) -> None:
    with pytest.raises(UserError, match=rf"train\.jsonl:17: key 'field': expected a string, found {found}"):
        text_field(located(value), "field")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected text or a list of chat messages, found the number 3"),
        ([], "expected text or a list of chat messages, found the list"),
        (["hi"], r"key 'field\[0\]': expected an object with role and content, found the string"),
        ([{"role": "user"}], r"key 'field\[0\]': no key 'content'"),
        ([{"role": "user", "content": None}], r"key 'field\[0\]\.content': expected a string, found null"),
        ([USER, {"role": "asistant", "content": ""}], r"key 'field\[1\]': .* 'asistant'; did you mean 'assistant'\?"),
        ([USER, USER], r"key 'field\[1\]': expected user and assistant in turns, found two messages of role 'user'"),
        ([USER, {"role": "system", "content": ""}], r"key 'field\[1\]': a system message can only be the first"),
        ([{**USER, "contents": "x"}], r"key 'field\[0\]': unknown key 'contents'; did you mean 'content'\?"),
        ([USER, {"role": "assistant", "content": "x"}], "the last message must be the user's, found role 'assistant'"),
    ],
)
def test_a_prompt_is_text_or_messages_that_end_with_the_user(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"train\.jsonl:17: .*{message}"):
        prompt_field(located(value), "field")


def test_keys_that_a_table_fills_with_null_are_left_alone() -> None:
    assert prompt_field(located([{**USER, "name": None}]), "field") == [USER]


def test_a_score_may_have_a_range() -> None:
    assert number_field(located(4), "field", (0, 4)) == 4
    with pytest.raises(
        UserError, match=r"train\.jsonl:17: key 'field': expected a number from 0 to 4, found the number 5"
    ):
        number_field(located(5), "field", (0, 4))


def test_empty_prompts_hold_blanks_only() -> None:
    assert is_empty(" \n")
    assert is_empty([{"role": "system", "content": "x"}, {"role": "user", "content": " "}])
    assert not is_empty("x")
    assert not is_empty([USER])
