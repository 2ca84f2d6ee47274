"""The terminal of a conversation: lines in, pieces of text out, and commands that begin with a slash."""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from sipo_pl.messages.errors import UserError, nearest
from sipo_pl.method.weights import Point, corners, parse_point
from sipo_pl.storage.stopping import break_off
from sipo_pl.use.chat import STOPPED, Conversation

HELP = """/weights 0.2,0.8          answer at other weights from now on; without them, say which are in use
/compare [0.2,0.8 …]      the last question at several weights, side by side; the corners and yours where none are given
/retry                    answer the last question again
/reset                    forget the conversation
/save [FILE]              write the conversation as JSON
/help                     these lines
/quit                     end, as does the end of the input; Ctrl-C breaks an answer off"""
SAVED = "chat.json"


class Screen:
    """Talks with a user until the end of the input.

    Args:
        conversation: who answers.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.commands: dict[str, Callable[[list[str]], None]] = {
            "weights": self._weights,
            "compare": self._compare,
            "retry": self._retry,
            "reset": self._reset,
            "save": self._save,
            "help": lambda words: self._say(HELP),
        }

    def run(self) -> None:
        """Answer lines of the standard input until its end, or `/quit`."""
        if sys.stdin.isatty():
            import readline  # noqa: F401 (lines can then be edited and called back)
        self._say(f"weights {self._named(self.conversation.weights)}; /help lists the commands")
        if not self.conversation.remembers:
            self._say("the prompt template is plain: every question stands alone")
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return
            except KeyboardInterrupt as asked:
                break_off(asked)
                self._say("\n/quit ends")
                continue
            if line == "/quit":
                return
            if line:
                self._obey(line)

    def _obey(self, line: str) -> None:
        try:
            if not line.startswith("/"):
                self._answer(line)
                return
            name, *words = line[1:].split()
            if name not in self.commands:
                raise UserError(f"no command /{name}{nearest(name, [*self.commands, 'quit'])}")
            self.commands[name](words)
        except UserError as error:
            hint = "; /reset begins a new conversation" if "max_length" in str(error) and self._turns else ""
            self._say(f"{error}{hint}")

    @property
    def _turns(self) -> int:
        return len(self.conversation.turns)

    def _answer(self, user: str) -> None:
        with closing(self.conversation.answer(user)) as pieces:
            try:
                for piece in pieces:
                    self.console.print(printable(piece), end="", soft_wrap=True)
                    self.console.file.flush()
            except KeyboardInterrupt as asked:
                break_off(asked)
        self.console.print()
        reason = self.conversation.turns[-1].finish_reason
        if reason == "length":
            self._say("[cut at the longest answer; --max_new_tokens and --max_length set it]")
        elif reason == STOPPED:
            self._say("[stopped]")

    def _weights(self, words: list[str]) -> None:
        if words:
            self.conversation.weights = self._point(" ".join(words))
        self._say(f"weights {self._named(self.conversation.weights)}")

    def _compare(self, words: list[str]) -> None:
        points = [self._point(word) for word in words]
        if not points:
            points = [self.conversation.weights, *corners(len(self.conversation.weights))]
            points = sorted(set(points), reverse=True)
        texts: list[str] = [""] * len(points)
        with closing(self.conversation.compare(points)) as steps:
            try:
                if self.console.is_terminal:
                    with Live(console=self.console, auto_refresh=False, vertical_overflow="visible") as live:
                        for texts in steps:
                            live.update(self._beside(points, texts), refresh=True)
                    return
                texts = list(steps)[-1]
            except KeyboardInterrupt as asked:
                break_off(asked)
                self._say("[stopped]")
        self.console.print(self._beside(points, texts))

    def _beside(self, points: Sequence[Point], texts: Sequence[str]) -> Group | Columns:
        """Return the answers side by side, or below each other where the terminal is narrow."""
        panels = [
            Panel(Text(printable(text)), title=Text(self._named(point)))
            for point, text in zip(points, texts, strict=True)
        ]
        width = self.console.width // len(panels) - 1
        return Columns(panels, width=width, expand=True) if width >= 24 else Group(*panels)

    def _retry(self, words: list[str]) -> None:
        if not self._turns:
            raise UserError("nothing was asked yet")
        self._answer(self.conversation.turns.pop().user)

    def _reset(self, words: list[str]) -> None:
        self.conversation.turns.clear()
        self._say("forgotten")

    def _save(self, words: list[str]) -> None:
        path = Path(" ".join(words) or SAVED)
        if path.exists():
            raise UserError(f"{path}: is there already; give another name")
        self.conversation.save(path)
        self._say(f"{self._turns} turns in {path}")

    def _point(self, text: str) -> Point:
        return parse_point(text, self.conversation.policies.objectives)

    def _named(self, point: Point) -> str:
        names = self.conversation.policies.objectives
        return ",".join(f"{name}={weight:g}" for name, weight in zip(names, point, strict=True))

    def _say(self, text: str) -> None:
        self.console.print(text, style="dim", soft_wrap=True)


def printable(text: str) -> str:
    """Return text without control characters but for line breaks and tabs; a terminal would obey them."""
    return "".join(one if one in "\n\t" or one.isprintable() else "\ufffd" for one in text)
