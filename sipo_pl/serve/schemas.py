"""Bodies of requests, field by field; what is not among them is refused by name, so that nothing is passed over."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_STOPS, LONGEST_STOP = 4, 256
Finite = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]

# fields that change no answer
IGNORED = {
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}
# fields that are not implemented -> values by which they ask for nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}


class StreamOptions(BaseModel):
    """How an answer is streamed.

    Args:
        include_usage: end with a chunk that counts the tokens
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool = False


class Sampling(BaseModel):
    """What chats and completions share.

    Args:
        model: name of the served run, alone or with weights: ``run@0.7,0.3``
        weights: as on the command line, as numbers in the objectives' order, or by objective
        temperature: divides the fused scores; zero is greedy
        top_p: share of probability that the likeliest tokens must hold to be drawn from
        max_tokens: longest answer
        seed: of the draws
        stop: texts that end an answer, and are not part of it
        stream: send the answer in pieces
        stream_options: see there
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    weights: str | list[Finite] | dict[str, Finite] | None = None
    temperature: Finite | None = Field(None, ge=0, le=2)
    top_p: Finite | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def longest(self) -> int | None:
        """Return the most tokens of an answer, if the request says."""
        return self.max_tokens


class Part(BaseModel):
    """A part of a message: text, and nothing else."""

    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation.

    Args:
        role: whose
        content: its text, or parts that are joined
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(Sampling):
    """Body of `/v1/chat/completions`.

    Args:
        messages: the conversation; its last turn is the user's
        max_completion_tokens: another name of `max_tokens`
    """

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(Sampling):
    """Body of `/v1/completions`.

    Args:
        prompt: text that is continued as it is, or its tokens
    """

    prompt: str | list[str] | list[int]
