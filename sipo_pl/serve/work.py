"""What the engine is asked to do, and what comes of it."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sipo_pl.engine.decoding.options import Decoding
from sipo_pl.serve.answer_text import AnswerText
from sipo_pl.serve.errors import ApiError

ApiFinishReason = Literal["stop", "length"]


class Piece(NamedTuple):
    """What came of a request.

    Args:
        text: that is new
        tokens: of the answer so far, EOS included
        finish_reason: why the answer ended; none where it goes on
        error: what went wrong; nothing comes after it
    """

    text: str
    tokens: int
    finish_reason: ApiFinishReason | None = None
    error: ApiError | None = None


@dataclass
class Work:
    """A request to be answered.

    Args:
        prompt_ids: tokens of the prompt
        weights: one for each objective
        decoding: its settings
        seed: of its draws; random where not given
        stops: texts that end the answer
        eager: pieces are wanted as they come; else the whole text at the end
    """

    prompt_ids: tuple[int, ...]
    weights: tuple[float, ...]
    decoding: Decoding
    seed: int | None = None
    stops: tuple[str, ...] = ()
    eager: bool = False
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    begun: float = field(default_factory=time.monotonic)


@dataclass
class Held:
    """A request that the engine's thread decodes.

    Args:
        work: what was asked
        text: of the answer
        tokens: made so far
    """

    work: Work
    text: AnswerText
    tokens: int = 0
