"""Pieces of text that together are the decoded response, whatever bytes a token holds."""

import pytest
from tiny import make_tiny_tokenizer

from sipo_pl.recipe.recipe import Template
from sipo_pl.text.templates import PromptTemplate
from sipo_pl.text.text_stream import TextStream


@pytest.fixture(scope="module")
def template() -> PromptTemplate:
    return PromptTemplate(make_tiny_tokenizer(), Template(text="{raw_prompt}"))


def test_a_character_comes_when_its_last_byte_does(template: PromptTemplate) -> None:
    ids = template.tokenizer("a\u00e9 \U0001f642", add_special_tokens=False)["input_ids"]
    stream = TextStream(template)
    pieces = [stream.push(token) for token in ids]
    assert pieces == ["a", "", "\u00e9", " ", "", "", "", "\U0001f642"]
    assert stream.close() == ""


def test_bytes_that_are_no_text_come_at_the_end(template: PromptTemplate) -> None:
    ids = template.tokenizer("a\u00e9", add_special_tokens=False)["input_ids"][:2]
    stream = TextStream(template)
    assert [stream.push(token) for token in ids] == ["a", ""]
    assert stream.close() == template.decode(ids).removeprefix("a") != ""
