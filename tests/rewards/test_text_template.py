import pytest

from sipo_pl.messages.errors import SettingError, UserError
from sipo_pl.text.reward_template import TextTemplate


def test_fields_are_filled_and_texts_are_not_read_as_fields() -> None:
    template = TextTemplate("Q {prompt}\nA{response}!")
    assert template.fill("{response} {x}", " {prompt}") == "Q {response} {x}\nA {prompt}!"
    assert template.fill([{"role": "user", "content": "hi"}], "") == "Q hi\nA!"
    assert TextTemplate('{"only": {response}}').fill("x", "y") == '{"only": y}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{prompt}", r"^template: the field \{response\} is missing$"),
        ("{respons}", r"^template: no field \{respons\}; did you mean 'response'\?$"),
        ("{response} {response}", "^template: a field stands there twice$"),
    ],
)
def test_a_wrong_template_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        TextTemplate(text)


def test_a_conversation_has_no_place_in_a_text() -> None:
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
    with pytest.raises(UserError, match="one user message, found messages of system, user"):
        TextTemplate("{response}").fill(messages, "z")
