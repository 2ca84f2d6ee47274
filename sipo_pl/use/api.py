"""A finished run from Python: load it, fuse its policies at a weight, generate, score (docs/python.md).

run = load("runs/quickstart")
model = run.fuse("detail=0.7,ease=0.3")
answers = model.generate(["Why is the sky blue?"], max_new_tokens=64)
rewards = run.score(["Why is the sky blue?"], answers)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.decoding.streaming import Stream, stream
from sipo_pl.engine.lora.policies import stack_policies
from sipo_pl.engine.models.text_limit import text_limit
from sipo_pl.messages.errors import UserError
from sipo_pl.method.weights import check_point, parse_point
from sipo_pl.recipe.recipe import AlignmentStage
from sipo_pl.rewards.implicit import implicit_rewards
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.text_stream import TextStream
from sipo_pl.text.tokenizers import load_template
from sipo_pl.use.source import Source, open_source

Weights = str | Sequence[float] | Mapping[str, float]  # as on the command line, in the objectives' order, or by name

BATCH_TOKENS = 8192  # tokens of one forward when scoring, over all policies
ANSWER_TOKENS = 256


def load(
    folder: str | Path,
    *,
    base_model: str | None = None,
    policies: AlignmentStage | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    device: str | None = None,
    divergence: str | None = None,
) -> "Policies":
    """Load the policies of a run folder, or of a folder that `sipo_pl export --kinds policies` wrote.

    Args:
        folder: which.
        base_model: folder or hub name in the place of the base model that the folder names.
        policies: of a run folder, the stage whose policies are taken; realign where that is complete, else align.
        dtype: dtype of the base models; the run's where not given.
        device: such as cpu or cuda:1; a GPU where there is one.
        divergence: import path of the class that fuses exported policies, where it is none of this package, such as
            "my_rules.ChiSquared"; its code is imported.

    Raises:
        UserError: no such folder, policies that are missing or do not fit, another base model than that of training.
    """
    source = open_source(Path(folder), base_model=base_model, policies=policies, divergence=divergence)
    return Policies(source, dtype, device)


class Policies:
    """The policies of a run over their base model, ready to be fused at any weights.

    Args:
        source: the policies.
        dtype: dtype of the base models; the run's where not given.
        device: where they run; a GPU where there is one.
    """

    def __init__(
        self, source: Source, dtype: Literal["float32", "bfloat16"] | None = None, device: str | None = None
    ) -> None:
        self.source, self.objectives = source, source.names
        self.template = load_template(source.base_models[0], source.template)
        self.policy_set = stack_policies(source.policies, dtype or source.dtype)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        for stack in self.policy_set.stacks:
            stack.model.to(place)  # type: ignore[arg-type]

    @property
    def context_length(self) -> int:
        """Return the tokens that prompt and answer may have together, as far as the base model's config tells."""
        model = self.policy_set.stacks[0].model
        limit = text_limit(model)
        trained = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31
        return min(int(trained), limit.tokens) if limit else int(trained)

    def weights(self, weights: Weights) -> tuple[float, ...]:
        """Return one weight for each objective, in their order.

        Raises:
            UsageError: an unknown or missing objective, or weights off the simplex.
        """
        if isinstance(weights, Mapping):
            weights = ",".join(f"{name}={weight!r}" for name, weight in weights.items())
        if isinstance(weights, str):
            return parse_point(weights, self.objectives)
        if len(weights) != len(self.objectives):
            raise UserError(f"weights {tuple(weights)}: {len(weights)} numbers for objectives {list(self.objectives)}")
        check_point(weights)
        return tuple(map(float, weights))

    def fuse(self, weights: Weights | None = None) -> "Fused":
        """Return the model that fuses the policies at `weights`; at those of the export where none are given."""
        if weights is None and self.source.weights is None:
            raise UserError(f"weights: {self.source.folder} names none; give one for each of {self.objectives}")
        return Fused(self, self.weights(weights if weights is not None else self.source.weights or ()))

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[dict[str, float]]:
        """Return the implicit reward of each response under each policy, by objective.

        It is beta * (log pi(y|x) - log base(y|x)) for reverse KL, a proxy of what the policy was taught.

        Args:
            prompts: texts or chat messages, without template.
            responses: one for each.
        """
        rows = self.template.encode_all(list(zip(prompts, responses, strict=True)))
        source = self.source
        count = len(self.objectives)
        rewards = implicit_rewards(self.policy_set, count, rows, source.divergence, source.beta, BATCH_TOKENS)
        return [dict(zip(self.objectives, column, strict=True)) for column in rewards.T.tolist()]

    def stream(self, slots: int = 8) -> AbstractContextManager[Stream]:
        """Open a stream of requests that come and go, each at weights of its own; see `engine.decoding.streaming`.

        Args:
            slots: requests that are decoded at once.
        """
        source = self.source
        ends, count = self.template.end_ids, len(self.objectives)
        return stream(self.policy_set, count, source.divergence, ends, slots=slots, seed=source.seed)

    def decoding(
        self,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int | None = ANSWER_TOKENS,
        max_length: int | None = None,
        beams: int = 1,
    ) -> Decoding:
        """Return settings of decoding; prompt and answer fill the model's context at most.

        Raises:
            UserError: a value out of range, or a length that the model's context does not hold.
        """
        context = self.context_length
        if max_length is not None and max_length > context:
            raise UserError(f"max_length: {max_length} tokens are more than the model's context of {context}")
        return Decoding(temperature, top_p, beams, max_length or context, max_new_tokens, batch_rows=None)


class Fused:
    """Policies fused at a weight.

    Args:
        policies: the policies.
        weights: one for each objective.
    """

    def __init__(self, policies: Policies, weights: tuple[float, ...]) -> None:
        self.policies, self.weights = policies, weights

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int | None = ANSWER_TOKENS,
        max_length: int | None = None,
        beams: int = 1,
        seed: int = 0,
    ) -> list[str]:
        """Answer prompts together, greedily where `temperature` is zero.

        Args:
            prompts: texts or chat messages, without template.
            temperature: divides the fused scores.
            top_p: share of probability that the likeliest tokens must hold to be drawn from.
            max_new_tokens: longest answer in tokens.
            max_length: longest prompt and answer in tokens; the model's context where not given.
            beams: texts that are followed at once.
            seed: seed of the draws.

        Raises:
            UserError: a prompt that leaves no token for an answer, or a setting out of range.
        """
        mine = self.policies
        decoding = mine.decoding(temperature, top_p, max_new_tokens, max_length, beams)
        requests = [self.request(prompt, str(index)) for index, prompt in enumerate(prompts)]
        if long := [one for one in requests if decoding.limit(len(one.prompt_ids)) < 1]:
            count = len(long[0].prompt_ids)
            raise UserError(f"prompt {long[0].key} has {count} tokens of {decoding.max_length}: none is left to answer")
        source, template = mine.source, mine.template
        made = generate(mine.policy_set, requests, decoding, source.divergence, template.end_ids, seed)
        return [template.decode(one.token_ids) for one in made]

    def stream(
        self,
        prompt: Prompt,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_new_tokens: int | None = ANSWER_TOKENS,
        max_length: int | None = None,
    ) -> Iterator[str]:
        """Yield the answer to a prompt in pieces, as it is made; arguments are those of `generate`."""
        mine = self.policies
        decoding = mine.decoding(temperature, top_p, max_new_tokens, max_length)
        text = TextStream(mine.template)
        with mine.stream(slots=1) as running:
            running.add(self.request(prompt, "0"), decoding)
            while running.busy:
                for event in running.step():
                    if event.token_id is not None and (piece := text.push(event.token_id)):
                        yield piece
        if rest := text.close():
            yield rest

    def request(self, prompt: Prompt, key: str) -> Request:
        """Return the request of a stream that answers `prompt` at these weights."""
        return Request(key, tuple(self.policies.template.prompt_ids(prompt)), self.weights)
