"""A conversation with fused policies: turns, weights that change in between, the same answer at several weights."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.decoding.streaming import Stream
from sipo_pl.messages.errors import UserError
from sipo_pl.method.weights import Point, point_name
from sipo_pl.storage.json_lines import write_json
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.text_stream import TextStream
from sipo_pl.use.api import Policies

STOPPED = "stopped"  # an answer that the user broke off


@dataclass
class Turn:
    """A question with its answer.

    Args:
        user: what was asked
        assistant: what was answered
        weights: at which
        finish_reason: eos, length, or stopped by the user
    """

    user: str
    assistant: str
    weights: Point
    finish_reason: str


@dataclass
class Conversation:
    """A conversation with fused policies.

    Under a chat template an answer sees all turns before it. Under a plain template every question stands alone,
    because the policies were trained on single prompts.

    Args:
        policies: who answers
        stream: decodes; open as long as the conversation
        weights: of the next answer
        decoding: its settings
        system: system message, under a chat template; the template's own where none is given
    """

    policies: Policies
    stream: Stream
    weights: Point
    decoding: Decoding
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    asked: int = 0  # so that an answer that is asked for again is drawn by other noise

    @property
    def remembers(self) -> bool:
        """Return whether answers see the turns before."""
        return self.policies.source.template.kind == "chat"

    def prompt(self, user: str, turns: Sequence[Turn]) -> Prompt:
        """Return the prompt of a question behind `turns`: text where it is the first, as the batch stages see it."""
        if not self.remembers or not (turns or self.system):
            return user
        question = self.policies.template.user_message
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in turns:
            messages += [question(turn.user), {"role": "assistant", "content": turn.assistant}]
        return [*messages, question(user)]

    def answer(self, user: str) -> Generator[str, None, None]:
        """Yield the answer to a question in pieces, and keep the turn, also one that is broken off.

        Raises:
            UserError: the conversation leaves no token for an answer; the turn is not kept.
        """
        texts = self._add(user, self.turns, [self.weights])
        (text,) = texts.values()
        reason, said = STOPPED, 0
        try:
            for reasons in self._steps(texts):
                reason = next(iter(reasons.values()), STOPPED)
                if len(text.text) > said:
                    piece, said = text.text[said:], len(text.text)
                    yield piece
        finally:
            self._drop(texts)
            self.turns.append(Turn(user, text.text, self.weights, reason))

    def compare(self, points: Sequence[Point]) -> Generator[list[str], None, None]:
        """Yield, as they grow, the answers to the last question at several weights; the turns stay as they are.

        Raises:
            UserError: nothing was asked yet.
        """
        if not self.turns:
            raise UserError("nothing was asked yet that could be answered at several weights")
        texts = self._add(self.turns[-1].user, self.turns[:-1], points)
        try:
            for _ in self._steps(texts):
                yield [text.text for text in texts.values()]
        finally:
            self._drop(texts)

    def save(self, path: Path) -> None:
        """Write the turns as JSON, with the objectives and how they were decoded."""
        write_json(
            path,
            {
                "policies": self.policies.source.folder.name,
                "objectives": list(self.policies.objectives),
                "decoding": asdict(self.decoding),
                "system": self.system,
                "turns": [{**asdict(turn), "weights": point_name(turn.weights)} for turn in self.turns],
            },
        )

    def _add(self, user: str, turns: Sequence[Turn], points: Sequence[Point]) -> dict[str, TextStream]:
        """Let the stream answer a question at each of `points`; return the texts, which grow, by key."""
        template = self.policies.template
        ids = tuple(template.prompt_ids(self.prompt(user, turns)))
        texts: dict[str, TextStream] = {}
        for point in points:
            key = f"chat {self.asked}"
            self.stream.add(Request(key, ids, point), self.decoding)
            texts[key] = TextStream(template)
            self.asked += 1
        return texts

    def _steps(self, texts: dict[str, TextStream]) -> Iterator[dict[str, str]]:
        """Decode until all have ended; yield after each step why those ended that did."""
        reasons: dict[str, str] = {}
        while len(reasons) < len(texts):
            for event in self.stream.step():
                if event.token_id is not None:
                    texts[event.key].push(event.token_id)
                if event.finish_reason:
                    reasons[event.key] = event.finish_reason
                    texts[event.key].close()
            yield reasons

    def _drop(self, texts: dict[str, TextStream]) -> None:
        for key, text in texts.items():
            self.stream.cancel(key)
            text.close()
