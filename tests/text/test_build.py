from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Objective
from sipo_pl.text.prompts.build import CritiquePrompts, join_phrases, transcript

OBJECTIVES = [Objective("correctness", phrase="more correct"), Objective("ease", phrase="easier to read")]
JOINED = "more correct and easier to read"
PLAIN, CHAT = CritiquePrompts(OBJECTIVES, "plain"), CritiquePrompts(OBJECTIVES, "chat")
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "What is rain?"},
]

# whatever a form could mistake for its own: placeholders, headings, turns, format and regex signs
PLACEHOLDERS = ["{prompt}", "{response}", "{review}", "{objectives}", "{lead_in}", "{unknown}", "{0}", "{{", "}}"]
HEADINGS = ["### Question", "\n### Question\n", "\n### Suggestions\n", "Question:", " ASSISTANT:", "<|im_end|>"]
OTHERS = ["\\1", "\\g<0>", "%s", "$x", "\n", " ", PLAIN.lead_in, "Here is the new answer:\n"]
SIGNS = st.sampled_from([*PLACEHOLDERS, *HEADINGS, *OTHERS])
USER_TEXT = st.lists(SIGNS | st.text(max_size=5), max_size=8).map("".join)


def test_a_plain_review_is_a_solved_example_and_the_question() -> None:
    prompt, start = PLAIN.review_prompt("What is rain?", " Water that falls.")
    assert isinstance(prompt, str)
    example, question = prompt.split("### Question\nWhat is rain?\n\n### Response\nWater that falls.\n\n")
    assert example.startswith("### Question\n")
    assert prompt.count(f"suggestions that would make the response {JOINED}") == 2
    answer = example[example.index(PLAIN.lead_in) :].strip().split("\n")
    assert answer[0].endswith(f"{JOINED}:")
    assert [line.count(" - ") for line in answer[1:]] == [1, 1, 1]
    assert question.endswith("### Suggestions")
    assert start == f" {PLAIN.lead_in}\n"


def test_a_plain_rewrite_is_a_solved_example_and_the_question() -> None:
    prompt = PLAIN.rewrite_prompt("What is rain?", " Water that falls.", "Say why.\n")
    assert isinstance(prompt, str)
    example, question = prompt.split(
        "### Question\nWhat is rain?\n\n### Response\nWater that falls.\n\n### Suggestions\nSay why.\n\n"
    )
    assert example.split("### New response\n")[1].strip().count("\n\n") == 2  # an answer of three paragraphs
    assert PLAIN.lead_in in example
    assert f"so that it is {JOINED}" in question
    assert question.endswith("### New response")


@pytest.mark.parametrize("prompt", ["What is rain?", TALK])
def test_a_chat_goes_on(prompt: Any) -> None:
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    asked, start = CHAT.review_prompt(prompt, "Water.")
    assert asked[:-1] == [*before, {"role": "assistant", "content": "Water."}]
    assert asked[-1]["role"] == "user"  # type: ignore[index]
    assert JOINED in asked[-1]["content"]  # type: ignore[index]
    assert start == f"{CHAT.lead_in}\n"
    asked = CHAT.rewrite_prompt(prompt, "Water.", "Say why.")
    assert asked[:-1] == [*before, {"role": "assistant", "content": "Water."}]
    assert "Say why." in asked[-1]["content"]  # type: ignore[index]
    assert JOINED in asked[-1]["content"]  # type: ignore[index]


def test_a_conversation_is_quoted_in_the_plain_form() -> None:
    prompt, _ = PLAIN.review_prompt(TALK, "Water.")
    assert "### Question\nSystem: Be kind.\n\nUser: Hi\n\nAssistant: Hello!\n\nUser: What is rain?\n\n###" in prompt
    assert transcript(TALK[1:2]) == "Hi"


def test_a_chat_file_may_quote_by_itself(tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("Q {prompt} A {response} make it {objectives}. {lead_in}")
    prompts = CritiquePrompts(OBJECTIVES, "chat", review_file=tmp_path / "ask.txt")
    asked, _ = prompts.review_prompt("1", "2")
    assert asked == [{"role": "user", "content": f"Q 1 A 2 make it {JOINED}. {prompts.lead_in}"}]


def test_phrases_are_joined_and_have_a_fallback() -> None:
    assert [join_phrases(list("abc")[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    prompts = CritiquePrompts(
        [Objective("not_rude"), Objective("b", phrase="bolder ")], "chat", lead_in="So {objectives}"
    )
    assert prompts.lead_in == "So better in not rude and bolder"


@given(USER_TEXT, USER_TEXT, USER_TEXT)
def test_what_users_write_survives_in_the_prompts(question: str, response: str, review: str) -> None:
    prompt, _ = PLAIN.review_prompt(question, response)
    assert f"### Question\n{question}\n\n### Response\n{response.strip()}\n\n### Task\n" in prompt
    prompt = PLAIN.rewrite_prompt(question, response, review)
    shown = f"\n\n### Response\n{response.strip()}\n\n### Suggestions\n{review.strip()}\n\n### Task\n"
    assert f"### Question\n{question}{shown}" in prompt
    asked = CHAT.rewrite_prompt(question, response, review)
    assert asked[:2] == [  # type: ignore[index]
        {"role": "user", "content": question},
        {"role": "assistant", "content": response.strip()},
    ]
    assert review.strip() in asked[2]["content"]  # type: ignore[index]


@given(USER_TEXT)
def test_a_text_without_the_heading_is_only_stripped(generated: str) -> None:
    text = f"x {generated.replace('#', '')} x"
    assert PLAIN.cut_review(text) == PLAIN.cut_rewrite(text) == CHAT.cut_review(text) == CHAT.cut_rewrite(text) == text


@given(USER_TEXT)
def test_a_cut_text_ends_before_the_next_question(generated: str) -> None:
    text = f"x {generated.replace('#', '')}"
    for cut in (PLAIN.cut_review, PLAIN.cut_rewrite):
        assert cut(f"{text}\n### Question\n{generated}") == text.strip()
    assert CHAT.cut_review(f"{text}\n### Question\ny") == f"{text}\n### Question\ny"


@pytest.mark.parametrize("prompts", [PLAIN, CHAT])
def test_nothing_may_be_left(prompts: CritiquePrompts) -> None:
    assert prompts.cut_review(" \n") == prompts.cut_rewrite("") == ""
    assert PLAIN.cut_rewrite("### Question\nWhat?") == ""


@pytest.mark.parametrize("prompts", [PLAIN, CHAT])
def test_a_lead_in_said_again_is_left_out(prompts: CritiquePrompts) -> None:
    assert prompts.cut_review(f"\n{prompts.lead_in}\n1. Say why.") == "1. Say why."


@pytest.mark.parametrize(
    "opening",
    [
        "Here is a revised version of the answer:\n\n",
        "Here's the new answer:\n",
        "Sure! Here’s a rewritten text, easier to read:\n",
        "**Here is your improved answer:**\n\n",
    ],
)
def test_an_announcement_is_left_out_of_a_chat_rewrite(opening: str) -> None:
    assert CHAT.cut_rewrite(f"{opening}Rain is water.\nIt falls.") == "Rain is water.\nIt falls."
    assert PLAIN.cut_rewrite(f"{opening}Rain.") == f"{opening}Rain."


@pytest.mark.parametrize(
    "text",
    [
        "Here are three tips:\n1. Rest.",
        "Here is what rain is: water.",
        "Here is how the new law works:\n1. It taxes.",
        "To install the new version:\n1. Run it.",
    ],
)
def test_an_opening_of_the_answer_itself_stays(text: str) -> None:
    assert CHAT.cut_rewrite(text) == text


def test_the_fingerprint_follows_what_shapes_the_prompts(tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("{objectives}?")
    same = CritiquePrompts(OBJECTIVES, "chat")
    others = [
        PLAIN,
        CritiquePrompts(OBJECTIVES[::-1], "chat"),
        CritiquePrompts(OBJECTIVES, "chat", lead_in="So:"),
        CritiquePrompts(OBJECTIVES, "chat", review_file=tmp_path / "ask.txt"),
    ]
    assert same.fingerprint == CHAT.fingerprint
    assert len({CHAT.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("kind", "option", "content", "message"),
    [
        (
            "plain",
            "review_file",
            "Q: {prompt} {respnse} {objectives}",
            "unknown placeholder {respnse}; did you mean 'response'?",
        ),
        ("plain", "rewrite_file", "Q: {prompt} {response} {objectives}", "no placeholder {review}"),
        ("plain", "review_file", "{prompt} {response} {objectives}", "{prompt} needs a heading"),
        ("chat", "review_file", "{objectives} {review}", "unknown placeholder {review}"),
        ("chat", "rewrite_file", "{objectives}", "no placeholder {review}"),
        ("chat", "review_file", "{objectives} {prompt}", "no placeholder {response}"),
    ],
)
def test_a_bad_file_of_the_user_is_named(tmp_path: Path, kind: Any, option: str, content: str, message: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        CritiquePrompts(OBJECTIVES, kind, **{option: path})  # type: ignore[arg-type]
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_bad_lead_in_is_named() -> None:
    with pytest.raises(
        UserError, match=r"^lead_in: line 1: unknown placeholder \{objective\}; did you mean 'objectives'"
    ):
        CritiquePrompts(OBJECTIVES, "chat", lead_in="Make it {objective}")
