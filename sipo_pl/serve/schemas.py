"""Bodies of requests, field by field; what is not among them is refused by name, so that nothing is passed over."""

from collections.abc import Mapping, Set
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from sipo_pl.messages.errors import nearest

MOST_STOPS, LONGEST_STOP = 4, 256
LONGEST_NAME = 100  # characters of a field's name that are repeated in an error
Finite = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Neutral = Mapping[str, tuple[Any, ...]]


class Fields(BaseModel):
    """An object of a request, at any depth: it has the fields of its class, and every other one is refused by name.

    A null asks for what a missing field asks for, except where the field must be given.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    ignored: ClassVar[Set[str]] = frozenset()  # fields that change no answer
    neutral: ClassVar[Neutral] = {}  # fields that are not implemented -> values by which they ask for nothing

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kept = {}
        for key, value in values.items():
            known = cls.model_fields.get(key)
            if known and (value is not None or known.is_required()):
                kept[key] = value
            if known or value is None or key in cls.ignored:
                continue
            if key not in cls.neutral:
                name = key[:LONGEST_NAME]
                raise field_error("unknown_field", name, f"no such field{nearest(name, cls.model_fields)}")
            if not any(_same(value, neutral) for neutral in cls.neutral[key]):
                raise field_error("unsupported_field", key, "not supported by this server; leave it out")
        return kept


def field_error(code: str, field: str, said: str) -> PydanticCustomError:
    """Return an error of a field, which the place of the object that holds it is put before.

    Args:
        code: a name for programs.
        field: its name.
        said: what is wrong.
    """
    return PydanticCustomError(code, "{said}", {"field": field, "said": said})


def _same(value: Any, neutral: Any) -> bool:
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)


class StreamOptions(Fields):
    """How an answer is streamed.

    Args:
        include_usage: end with a chunk that counts the tokens
    """

    neutral: ClassVar[Neutral] = {"include_obfuscation": (False,)}

    include_usage: bool = False


class Sampling(Fields):
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

    ignored: ClassVar[Set[str]] = {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
    neutral: ClassVar[Neutral] = {
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

    model: str
    weights: str | list[Finite] | dict[str, Finite] | None = None
    temperature: Finite | None = Field(None, ge=0, le=2)
    top_p: Finite | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _streamed(self) -> Self:
        if self.stream_options and not self.stream:
            raise field_error("unsupported_field", "stream_options", 'only for "stream": true')
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def longest(self) -> int | None:
        """Return the most tokens of an answer, if the request says."""
        return self.max_tokens


class Part(Fields):
    """A part of a message: text, and nothing else."""

    neutral: ClassVar[Neutral] = {"annotations": ([],), "file": (), "image_url": (), "input_audio": (), "refusal": ()}

    type: Literal["text"]
    text: str


class Message(Fields):
    """A turn of a conversation.

    Args:
        role: whose
        content: its text, or parts that are joined; an earlier turn of the model may have none
    """

    neutral: ClassVar[Neutral] = {
        "annotations": ([],),
        "audio": (),
        "function_call": (),
        "name": (),
        "refusal": ("",),
        "tool_call_id": (),
        "tool_calls": ([],),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None

    @model_validator(mode="after")
    def _told(self) -> Self:
        if self.content is None and self.role != "assistant":
            said = f"expected a text of the {self.role}, found null; only an assistant's turn may be empty"
            raise field_error("empty_content", "content", said)
        return self

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatBody(Sampling):
    """Body of `/v1/chat/completions`.

    Args:
        messages: the conversation; its last turn is the user's
        max_completion_tokens: another name of `max_tokens`
    """

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_longest(self) -> Self:
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            said = f"found {self.max_completion_tokens}, but max_tokens is {self.max_tokens}; they name the same"
            raise field_error("invalid_value", "max_completion_tokens", said)
        return self

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(Sampling):
    """Body of `/v1/completions`.

    Args:
        prompt: text that is continued as it is, or its tokens
    """

    prompt: str | list[str] | list[int]
