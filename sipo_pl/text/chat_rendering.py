"""A model's own chat template: code from elsewhere, rendered at one date, within bounds, and with nothing left out."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from transformers import PreTrainedTokenizerBase

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.time_limit import time_limit
from sipo_pl.text.prompt import Prompt

SECONDS = 20.0  # in which a prompt must be rendered; usual templates take a thousandth
LONGEST = 10_000_000  # characters that a template may add to what it is given
CLOCK = "strftime_now"
_DIRECTIVE = re.compile(r"%[-_0^#]?[A-Za-z]")
_REASONING_END = "</think>"  # templates leave out what an earlier answer thought
_LARGE = 1_000_000  # factor of a product that no template needs
_SHOWN = 60


class ChatTemplate:
    """Renders chat messages by a tokenizer's chat template.

    Args:
        tokenizer: holds the template.
        now: what a template that prints the date takes for it.
        owner: who brought the template, for errors.
        seconds: most time for one prompt.

    Raises:
        UserError: no template of Jinja, or one that draws at random or computes without bounds.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        now: datetime,
        owner: str = "the tokenizer's chat template",
        seconds: float = SECONDS,
    ) -> None:
        self.tokenizer, self.owner, self.seconds = tokenizer, owner, seconds
        try:
            own = str(tokenizer.get_chat_template())
        except ValueError as error:
            raise UserError(f"{owner}: {_first_line(error)}") from None
        parsed = self._parse(own)
        self._refuse_unbounded(parsed)
        self.reads_clock = any(node.name == CLOCK for node in parsed.find_all(nodes.Name))
        self.source = at_date(own, now) if self.reads_clock else own
        # roles of a conversation, and whether the model is to go on -> which turn is left out
        self._said: dict[tuple[tuple[str, ...], bool], int | None] = {}
        # some templates take lists of parts alone, and make nothing of a text
        self.takes_parts = False
        self.takes_parts = not self._says_user() and self._says_user(as_parts=True)

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Return the text of a conversation, with the beginning of the model's turn where it is asked for.

        Raises:
            UserError: the template fails, takes too long, or leaves out a message or a part of it.
        """
        text = self.apply(messages, add_generation_prompt)
        roles = tuple(message["role"] for message in messages)
        shape = (roles, add_generation_prompt)
        if shape not in self._said:
            self._said[shape] = self._left_out(roles, add_generation_prompt)
        if (place := self._said[shape]) is not None:
            raise self._loss(messages, place)
        there = _squeezed(text)
        for place, message in enumerate(messages):
            content = message["content"]
            if message["role"] == "assistant":
                content = content.rpartition(_REASONING_END)[2]
            if _squeezed(content) not in there:
                raise self._loss(messages, place)
        return text

    def apply(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool, *, as_parts: bool = False
    ) -> str:
        """Return what the template makes of a conversation, whatever it leaves out.

        Raises:
            UserError: the template fails, or takes too long.
        """
        given: list[dict[str, Any]] = [dict(message) for message in messages]
        if self.takes_parts or as_parts:
            given = [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in given]
        try:
            with time_limit(self.seconds):
                text = str(
                    self.tokenizer.apply_chat_template(
                        given, chat_template=self.source, tokenize=False, add_generation_prompt=add_generation_prompt
                    )
                )
        except TemplateError as error:
            problem = _first_line(error)
        except TimeoutError:
            problem = f"takes more than {self.seconds:g} s for one prompt: it loops"
            raise _TooSlow(f"{self.owner}: {problem}") from None
        except Exception as error:  # of whatever the template does with what it finds
            problem = f"{type(error).__name__}: {_first_line(error)}"
        else:
            size = sum(len(message["content"]) for message in messages)
            if len(text) <= LONGEST + 100 * size:
                return text
            problem = f"makes {len(text)} characters of {size}"
        raise BadConversation(f"{self.owner}: {problem}")

    def _left_out(self, roles: Sequence[str], add_generation_prompt: bool) -> int | None:
        """Return which turn of a conversation is left out, whatever it says; None where none is, or where it fails."""
        marks = [f"zq{place}zq" for place in range(len(roles))]
        messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        try:
            text = self.apply(messages, add_generation_prompt)
        except _TooSlow:
            raise
        except UserError:
            return None  # the conversation itself says why
        return next((place for place, mark in enumerate(marks) if mark not in text), None)

    def _says_user(self, *, as_parts: bool = False) -> bool:
        """Return whether a question is in what is rendered, given as text or as a list of parts."""
        mark = "zqzq"
        try:
            return mark in self.apply([{"role": "user", "content": mark}], True, as_parts=as_parts)
        except _TooSlow:
            raise
        except UserError:
            return False

    def _loss(self, messages: Sequence[Mapping[str, str]], place: int) -> UserError:
        role, content = messages[place]["role"], messages[place]["content"]
        shown = content if len(content) <= _SHOWN else f"{content[:_SHOWN]}…"
        roles = ", ".join(message["role"] for message in messages)
        return BadConversation(
            f"{self.owner}: leaves out the {role} message {shown!r}, message {place + 1} of the turns {roles}"
        )

    def _parse(self, source: str) -> nodes.Template:
        try:
            return Environment(extensions=[_Generation, LoopControlExtension]).parse(source)
        except TemplateError as error:
            raise UserError(f"{self.owner}: line {getattr(error, 'lineno', '?')}: {_first_line(error)}") from None
        except RecursionError:
            raise UserError(f"{self.owner}: nested too deeply") from None

    def _refuse_unbounded(self, parsed: nodes.Template) -> None:
        """Refuse what renders a prompt otherwise each time, and arithmetic that no time limit can interrupt."""
        drawn = [node.name for node in parsed.find_all(nodes.Name) if node.name == "lipsum"]
        drawn += [node.name for node in parsed.find_all(nodes.Filter) if node.name == "random"]
        if drawn:
            raise UserError(f"{self.owner}: draws at random ({drawn[0]}), so that a prompt would never be the same")
        if powers := list(parsed.find_all(nodes.Pow)):
            raise UserError(f"{self.owner}: line {powers[0].lineno}: computes a power, which has no bound")
        for product in parsed.find_all(nodes.Mul):
            for side in (product.left, product.right):
                if isinstance(side, nodes.Const) and isinstance(side.value, int) and side.value > _LARGE:
                    raise UserError(f"{self.owner}: line {product.lineno}: multiplies by {side.value}")


class BadConversation(UserError):
    """A chat template fails on a conversation, or leaves out a message; `prompt` is the raw one, where it is known."""

    prompt: Prompt | None = None


class _TooSlow(BadConversation):
    """A chat template takes too long."""


def at_date(source: str, now: datetime) -> str:
    """Return a chat template whose clock stands still: `strftime_now` is a macro of its own that gives one date."""
    found = dict.fromkeys(_DIRECTIVE.findall(source))
    replaced = "".join(f" | replace({literal(one)}, {literal(now.strftime(one))})" for one in found)
    return prepend(f"{{% macro {CLOCK}(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}", source)


def prepend(head: str, source: str) -> str:
    """Return a template that begins with `head`, which ends in a block; what follows is rendered as it was."""
    # transformers drops a line break behind a block, and blanks in front of one that a line begins with
    return f"{head}\n{source}"


def literal(text: str) -> str:
    """Return a string literal of Jinja."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


class _Generation(Extension):
    """The block in which transformers lets a template mark what the model says."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja has it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _squeezed(text: str) -> str:
    return "".join(text.split())  # templates may trim what they are given


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
