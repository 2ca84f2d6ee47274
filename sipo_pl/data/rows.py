"""Row schemas between stages. Rows carry ids, never positions."""

from typing import Literal, NotRequired, TypedDict

from sipo_pl.text.prompt import Prompt


class PairRow(TypedDict):
    """Prepared pair: `prepare/{train,train_conflict,validation}.jsonl`."""

    pair_id: str
    prompt_id: str
    prompt: Prompt
    response_0: str
    response_1: str
    preferred: dict[str, Literal[0, 1, -1]]  # objective -> index of the preferred response, -1 a tie
    scores: NotRequired[dict[str, list[float]]]  # objective -> scores of response_0 and response_1, larger preferred


class PromptRow(TypedDict):
    """Test prompt: `prepare/test.jsonl`."""

    prompt_id: str
    prompt: Prompt


class SFTRow(TypedDict):
    """Response to be taught: `prepare/sft.jsonl`, each distinct one of train before the mixture."""

    prompt_id: str
    prompt: Prompt
    response: str
    preferred_by: list[str]  # objectives that prefer it in a pair at least


class SampleRow(TypedDict):
    """Generated response: stages sample, evaluate-align, evaluate-realign."""

    sample_id: str  # <prompt_id>/<round>/<point>/<k>
    prompt_id: str
    prompt: Prompt
    point: str  # "0.2,0.8" in the objectives' order, or "base"
    k: int
    text: str
    tokens: int  # generated, EOS included
    finish_reason: Literal["eos", "length"]
    marks: list[str]  # of empty, cut, collapsed, duplicate


class ReviewRow(TypedDict):
    """Review of a sample: stage review."""

    sample_id: str
    prompt_id: str
    review: str
    tokens: int
    finish_reason: Literal["eos", "length"]
    marks: list[str]


class RewriteRow(TypedDict):
    """Rewritten sample: stage rewrite."""

    sample_id: str
    prompt_id: str
    text: str
    tokens: int
    finish_reason: Literal["eos", "length"]
    marks: list[str]


class ScoreRow(TypedDict):
    """Implicit rewards of one text: stage score. Equal texts of a prompt are scored once."""

    text_id: str
    prompt_id: str
    rewards: dict[str, float]  # "policy:<objective>" and "soup:<point>"


class CombinedRow(TypedDict):
    """The better of a sample and its rewrite: stage combine."""

    sample_id: str
    prompt_id: str
    prompt: Prompt
    point: str
    k: int
    text: str
    source: Literal["original", "rewrite"]
    rewards: dict[str, float]
    marks: list[str]  # marked rows have no rewards and are kept out of the filter, unless compat.keep_marked


class KeptRow(TypedDict):
    """A pair with its Pareto-better response: stage filter, `kept.jsonl`."""

    pair_id: str
    prompt_id: str
    prompt: Prompt
    response_0: str
    response_1: str
    preferred: dict[str, Literal[0, 1, -1]]
    kept: str  # the response
    sample_id: str
    point: str
    source: Literal["original", "rewrite"]
    margin: float  # smallest advantage over a response of the pair, over all reward models
    rewards: dict[str, float]
    previous: NotRequired[str]  # what the round before kept, where `kept` beats it under every reward model


class MeasuredRow(TypedDict):
    """Rewards of an evaluation response: stages measure-align, measure-realign."""

    sample_id: str
    prompt_id: str
    point: str
    rewards: dict[str, float]  # objective -> reward, larger is better
    words: int
    finish_reason: Literal["eos", "length"]
    marks: list[str]


class AnswerRow(TypedDict):
    """A compared method's answer to a test prompt: stage answer."""

    sample_id: str  # <prompt_id>/<method>/<point>/<k>
    prompt_id: str
    prompt: Prompt
    method: str
    point: str  # "" where the method has one answer for all weights
    k: int
    text: str
    tokens: int
    finish_reason: Literal["eos", "length"]
    marks: list[str]
    kl: float  # divergence from the base model in nats, summed over the response


class JudgedRow(TypedDict):
    """Rewards of a compared method's answer: stage judge."""

    sample_id: str
    prompt_id: str
    method: str
    point: str
    tokens: int
    kl: float
    finish_reason: Literal["eos", "length"]
    marks: list[str]
    rewards: dict[str, float]  # objective -> reward, larger is better
    words: int
    wins: NotRequired[float]  # probability that the judge prefers it to the baseline's answer
