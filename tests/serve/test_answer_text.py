"""Text up to a stop text, in pieces that are never taken back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipo_pl.recipe.recipe import Template
from sipo_pl.serve.answer_text import AnswerText
from sipo_pl.text.templates import PromptTemplate
from sipo_pl.text.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def template(tiny_model: Path) -> PromptTemplate:
    return PromptTemplate(load_tokenizer(str(tiny_model)), Template("chat"))


@given(text=st.text("abcé", max_size=30), stops=st.lists(st.text("abé", min_size=1, max_size=4), max_size=3))
def test_pieces_are_the_text_before_the_first_stop(template: PromptTemplate, text: str, stops: list[str]) -> None:
    ids = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = AnswerText(template, stops, eager=True)
    pieces = []
    for token_id in ids:
        pieces.append(answer.push(token_id))
        if answer.stopped:
            break
    if not answer.stopped:
        pieces.append(answer.close())
    ends = [text.index(stop) for stop in stops if stop in text]
    # a text that is long may end within another that begins before it: the one that is whole first counts
    first = min((text.index(stop) + len(stop) for stop in stops if stop in text), default=len(text))
    cut = min((text[:first].index(stop) for stop in stops if stop in text[:first]), default=len(text))
    assert "".join(pieces) == text[:cut]
    assert answer.stopped == bool(ends)


def test_without_need_text_is_decoded_at_the_end_alone(template: PromptTemplate) -> None:
    answer = AnswerText(template, (), eager=False)
    ids = template.tokenizer("abc", add_special_tokens=False)["input_ids"]
    assert [answer.push(token_id) for token_id in ids] == ["", "", ""]
    assert answer.close() == "abc"
