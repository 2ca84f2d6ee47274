"""The text of an answer while its tokens come in, up to the first stop text."""

from collections.abc import Sequence

from sipo_pl.text.templates import PromptTemplate
from sipo_pl.text.text_stream import TextStream


class AnswerText:
    """Turns tokens into text that is certain: nothing that may turn out to belong to a stop text.

    Args:
        template: decodes.
        stops: texts that end the answer, and are not part of it.
        eager: text is asked for after every token; else only at the end, unless there are stop texts.
    """

    def __init__(self, template: PromptTemplate, stops: Sequence[str], eager: bool) -> None:
        self.stops, self.eager = tuple(stops), eager or bool(stops)
        self.stopped = False
        self._stream, self._said = TextStream(template), 0

    def push(self, token_id: int) -> str:
        """Take a token; return the text that is certain now. Once a stop text is there, `stopped` is true."""
        if not self.eager:
            self._stream.token_ids.append(token_id)
            return ""
        self._stream.push(token_id)
        return self._certain(self._held_back())

    def close(self) -> str:
        """Return the rest."""
        self._stream.close()
        return self._certain(0)

    def _certain(self, held_back: int) -> str:
        text = self._stream.text
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        end = min(found) if found else len(text) - held_back
        self.stopped = bool(found)
        piece, self._said = text[self._said : end], max(self._said, end)
        return piece

    def _held_back(self) -> int:
        """Return how many of the last characters a stop text may begin with."""
        text = self._stream.text
        lengths = (n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(lengths, default=0)
