import pytest

from sipo_pl.messages.errors import UserError
from sipo_pl.released.markers import search_response


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ("USER: x ASSISTANT: y", " y"),
        ("USER: x ASSISTANT:", ""),
        ("USER:  ASSISTANT:y\n", "y\n"),
        ("USER: has ASSISTANT: inside ASSISTANT: tail", " inside ASSISTANT: tail"),  # split within the prompt
    ],
)
def test_a_response_that_is_searched_follows_the_first_mark(text: str, response: str) -> None:
    assert search_response(text, "USER: {raw_prompt} ASSISTANT:") == response


@pytest.mark.parametrize("text", ["no marks", "USER: x", "x ASSISTANT: USER: "])
def test_a_text_without_the_marks_is_no_response(text: str) -> None:
    with pytest.raises(UserError, match="does not hold the marks of the template"):
        search_response(text, "USER: {raw_prompt} ASSISTANT:")
