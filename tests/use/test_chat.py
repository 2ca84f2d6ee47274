"""Conversations: the text of the batch stages, in pieces, through a real terminal."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from lively_run import Lively, set_recipe
from tiny_run import Command, environment

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.messages.errors import UserError
from sipo_pl.text.prompt import Prompt
from sipo_pl.use.api import Policies, load
from sipo_pl.use.chat import STOPPED, Conversation
from sipo_pl.use.chat_screen import printable

HALF, SHORT = (0.6, 0.4), (0.0, 1.0)
TOKENS = 14


@pytest.fixture(scope="module")
def policies(lively: Lively, tmp_path_factory: pytest.TempPathFactory) -> Policies:
    """The lively run under the chat template of its tokenizer."""
    run = tmp_path_factory.mktemp("chat") / "run"
    shutil.copytree(lively.run, run)
    set_recipe(run, template={"kind": "chat", "text": "Q: {raw_prompt}", "system": "Be brief."})
    return load(run)


@pytest.fixture
def conversation(policies: Policies) -> Iterator[Conversation]:
    with policies.stream() as stream:
        yield Conversation(policies, stream, HALF, policies.decoding(max_new_tokens=TOKENS))


def greedy(policies: Policies, prompt: Prompt, point: tuple[float, ...], tokens: int = TOKENS) -> str:
    """Return the text of the batch stages."""
    request = Request("x", tuple(policies.template.prompt_ids(prompt)), point)
    settings = Decoding(max_length=512, max_new_tokens=tokens)
    eos_id = policies.template.eos_id
    (made,) = generate(policies.policy_set, [request], settings, policies.source.divergence, eos_id, seed=1)
    return policies.template.decode(made.token_ids)


def test_a_terminal_shows_the_text_of_the_batch_stages(lively: Lively, tmp_path: Path) -> None:
    words = ["-m", "sipo_pl", "chat", "--model", str(lively.run), "--weights", "0.6,0.4"]
    words += ["--max_new_tokens", str(TOKENS)]
    terminal = pexpect.spawn(
        sys.executable, words, env=environment(TERM="dumb"), encoding="utf-8", timeout=120, dimensions=(50, 200)
    )
    policies = load(lively.run)
    expected = {point: greedy(policies, "test 0", point) for point in (HALF, SHORT)}
    assert expected[HALF] != expected[SHORT]
    saved = tmp_path / "talk.json"
    said = ""
    for line in ("test 0", "/weights kind=0,short=1", "test 0", "/compare 0.6,0.4 0,1", "/weights 1", f"/save {saved}"):
        terminal.expect("> ")
        said += terminal.before
        terminal.sendline(line)
    terminal.expect("> ")
    said += terminal.before
    terminal.sendline("/quit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    turns = json.loads(saved.read_text())["turns"]
    assert [turn["assistant"] for turn in turns] == [expected[HALF], expected[SHORT]]
    assert [turn["weights"] for turn in turns] == ["0.6,0.4", "0,1"]
    assert "1 numbers for 2 objectives" in said
    for text in expected.values():
        shown = [line for line in printable(text).splitlines() if line.strip()]
        assert all(said.count(line.rstrip()) >= 2 for line in shown)  # as an answer, and compared


def test_turns_follow_each_other_as_the_chat_template_writes_them(conversation: Conversation) -> None:
    policies = conversation.policies
    first = "".join(conversation.answer("one"))
    assert first == greedy(policies, "one", HALF)
    conversation.weights = SHORT
    second = "".join(conversation.answer("two"))
    messages = [
        {"role": "user", "content": "Q: one"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Q: two"},
    ]
    assert second == greedy(policies, messages, SHORT)
    assert policies.template.render(messages).startswith(policies.template.render("one") + first)
    assert [(turn.user, turn.weights) for turn in conversation.turns] == [("one", HALF), ("two", SHORT)]


def test_a_comparison_leaves_the_conversation_as_it_is(conversation: Conversation) -> None:
    with pytest.raises(UserError, match="nothing was asked yet"):
        list(conversation.compare([HALF]))
    list(conversation.answer("one"))
    before = list(conversation.turns)
    *_, last = conversation.compare([SHORT, HALF])
    assert last == [greedy(conversation.policies, "one", point) for point in (SHORT, HALF)]
    assert conversation.turns == before


def test_an_answer_that_is_broken_off_is_kept_as_far_as_it_came(conversation: Conversation) -> None:
    pieces = conversation.answer("one")
    said = next(pieces)
    pieces.close()
    (turn,) = conversation.turns
    assert turn.finish_reason == STOPPED
    assert turn.assistant.startswith(said)
    assert conversation.stream.busy == 0
    assert "".join(conversation.answer("two"))


def test_a_conversation_that_is_too_long_says_so(conversation: Conversation) -> None:
    conversation.decoding = Decoding(max_length=60, max_new_tokens=TOKENS)
    with pytest.raises(UserError, match=r"the prompt has \d+ tokens, and prompt and answer together may have 60"):
        list(conversation.answer("a long question " * 5))
    assert conversation.turns == []
    with pytest.raises(UserError, match="max_length: 4096 tokens are more than the model's context of 2048"):
        conversation.policies.decoding(max_length=4096)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "names none; give one for each of ('kind', 'short')"),
        (("--weights", "0.9,0.9"), "they sum to 1.8, not 1"),
        (("--weights", "0.5,0.5", "--max_length", "9999"), "more than the model's context of 2048"),
        (("--weights", "0.5,0.5", "--temperature", "-1"), "--temperature: expected a number >=0, found -1"),
    ],
)
def test_what_is_wrong_is_said_before_the_talk(
    command: Command, lively: Lively, words: tuple[str, ...], said: str
) -> None:
    found = command("chat", "--model", lively.run, *words)
    assert found.code in (1, 2)
    assert said in found.err


def test_terminals_get_no_control_characters() -> None:
    assert printable("a\x1b[2Jb\n\té\x07") == "a\ufffd[2Jb\n\té\ufffd"
