"""What models say: fused decoding, implicit rewards, logits, interpolated adapters."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sipo_pl.engine.decoding.fused_rows import log_probabilities
from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, FinishReason, Request
from sipo_pl.engine.lora.adapters import interpolate as interpolate_factors
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.policies import Policy, stack_policies
from sipo_pl.messages.errors import UsageError, UserError, nearest
from sipo_pl.method.divergences import Alpha, Divergence, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.released.divergences import UnscaledAlpha
from sipo_pl.released.scores import raw_logits
from sipo_pl.rewards.implicit import policy_logps
from sipo_pl.use.functions.tokens import PLAIN, template_of

TEXT_ALONE = "{raw_prompt}"
DIVERGENCES = {"reverse_kl": ReverseKL(), "forward_kl": ForwardKL(), "jsd": JensenShannon()}
ALPHA = "-divergence"  # behind the order, as in "0.5-divergence"


class Decoded(NamedTuple):
    """A decoded text.

    Args:
        output_ids: tokens of prompt and response, EOS included where it ended by one
        new_ids: tokens of the response, likewise
        text: prompt and response without special tokens
        finish_reason: "eos", or "length" where it was cut
    """

    output_ids: list[int]
    new_ids: list[int]
    text: str
    finish_reason: FinishReason


class Scored(NamedTuple):
    """Implicit rewards of one response, under each adapter and then under each interpolated one.

    Args:
        logp: log pi_k(y|x), summed over response tokens, EOS included
        ref_logp: the same under the base model
        reward: what the divergence makes of logp - ref_logp; beta times it for reverse KL
    """

    logp: list[float]
    ref_logp: float
    reward: list[float]


def divergence_of(f_type: str) -> Divergence:
    """Return the divergence of a name: reverse_kl, forward_kl, jsd, or the alpha-divergence such as 0.5-divergence."""
    if f_type.endswith(ALPHA):
        try:
            return Alpha(float(f_type.removesuffix(ALPHA)))
        except ValueError:
            raise UsageError(f"f_type {f_type!r}: no number before {ALPHA!r}") from None
    if f_type not in DIVERGENCES:
        raise UsageError(f"f_type: no divergence {f_type!r}{nearest(f_type, DIVERGENCES)}")
    return DIVERGENCES[f_type]


def decode(
    base_model: str | Sequence[str],
    adapters: Sequence[str],
    prompts: Sequence[str],
    weights: Sequence[Sequence[float]],
    f_type: str = "reverse_kl",
    max_length: int = 512,
    num_beams: int = 1,
    as_released: bool = False,
) -> list[Decoded]:
    """Decode, greedily or by beams, from the fusion of the adapters' policies (MOD, arXiv 2406.18853).

    Args:
        base_model: folder or hub name, or one for each adapter; computed in float32.
        adapters: PEFT folders, one a policy.
        prompts: texts that the policies continue, the template included.
        weights: one point for each prompt.
        f_type: divergence whose rule fuses, see `divergence_of`.
        max_length: longest prompt and response in tokens.
        num_beams: texts followed at once; one is greedy.
        as_released: with the accidents of the released code: greedy search cumulates logits in place of
            log-probabilities, jsd is the product of reverse KL, the alpha-divergence lacks 1/alpha.

    Returns:
        One text for each prompt.
    """
    divergence = _released(divergence_of(f_type)) if as_released else divergence_of(f_type)
    bases = [base_model] * len(adapters) if isinstance(base_model, str) else list(base_model)
    template = template_of(bases[0], TEXT_ALONE)
    requests = [
        Request(str(index), tuple(template.prompt_ids(prompt)), tuple(point))
        for index, (prompt, point) in enumerate(zip(prompts, weights, strict=True))
    ]
    policies = stack_policies([_policy(*one) for one in zip(bases, adapters, strict=True)], "float32")
    decoding = Decoding(beams=num_beams, max_length=max_length)
    scores = raw_logits if as_released else log_probabilities
    made = generate(policies, requests, decoding, divergence, template.end_ids, seed=0, greedy_scores=scores)
    found = []
    for prompt, request, generated in zip(prompts, requests, made, strict=True):
        text = prompt + template.decode(generated.token_ids)
        whole = [*request.prompt_ids, *generated.whole]
        found.append(Decoded(whole, generated.whole, text, generated.finish_reason))
    return found


def _released(divergence: Divergence) -> Divergence:
    if isinstance(divergence, JensenShannon):
        return ReverseKL()
    return UnscaledAlpha(divergence.alpha) if isinstance(divergence, Alpha) else divergence


def implicit_rewards(
    base_model: str,
    adapters: Sequence[str],
    raw_prompts: Sequence[str],
    responses: Sequence[str],
    beta: float = 0.1,
    soup_weights: Sequence[Sequence[float]] = (),
    prompt_template: str = PLAIN,
    f_type: str = "reverse_kl",
    batch_tokens: int = 8192,
) -> list[Scored]:
    """Score responses under each adapter, and under the adapters interpolated at each of `soup_weights`.

    Args:
        base_model: folder or hub name, the reference; computed in float32.
        adapters: PEFT folders.
        raw_prompts: one for each response, without template.
        responses: texts as decoded; the empty one is EOS alone.
        beta: scale of the reward.
        soup_weights: points.
        prompt_template: text with the field {raw_prompt}.
        f_type: divergence that the policies were held to the reference with, see `divergence_of`.
        batch_tokens: tokens of one forward, over all policies.
    """
    template = template_of(base_model, prompt_template)
    rows = template.encode_all(list(zip(raw_prompts, responses, strict=True)))
    policies = _policies(base_model, adapters, soup_weights)
    logps, references = policy_logps(stack_policies(policies, "float32"), len(policies), rows, batch_tokens)
    rewards = divergence_of(f_type).reward(logps - references, beta)
    return [
        Scored(own.tolist(), float(reference[0]), reward.tolist())
        for own, reference, reward in zip(logps.T, references.T, rewards.T, strict=True)
    ]


@torch.inference_mode()
def next_token_logits(
    base_model: str, adapters: Sequence[str], prompt: str, soup_weights: Sequence[Sequence[float]] = ()
) -> Tensor:
    """Return the logits behind a prompt: of each adapter, of each interpolated one, and of the base model last.

    Args:
        base_model: folder or hub name; computed in float32.
        adapters: PEFT folders.
        prompt: text, the template included.
        soup_weights: points at which the adapters are interpolated.

    Returns:
        (adapters + points + 1, vocabulary), float32.
    """
    policies = _policies(base_model, adapters, soup_weights)
    ids = tuple(template_of(base_model, TEXT_ALONE).prompt_ids(prompt))
    with stack_policies(policies, "float32").active(range(len(policies) + 1)) as forward:
        hidden, _ = forward.read([ids], [], [0], keep=False)
        return forward.logits(hidden[:, :, -1])[:, 0]


def interpolate(adapters: Sequence[str], weights: Sequence[float]) -> dict[str, Tensor]:
    """Interpolate adapters in weight space: A = sum_i w_i A_i and B = sum_i w_i B_i.

    Args:
        adapters: PEFT folders of one rank and scale.
        weights: a weight for each.

    Returns:
        Tensors by PEFT's names, float32; the scale alpha / r is not in B, as in the folders.

    Raises:
        UserError: adapters of other ranks, modules or scales.
    """
    read = [read_adapter(Path(folder)) for folder in adapters]
    if len({adapter.scale for adapter in read}) > 1:
        raise UserError(f"adapters of scales {[adapter.scale for adapter in read]} have no common scale to take out")
    tensors = {}
    for name, (a, b) in interpolate_factors([adapter.factors for adapter in read], weights).items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b / read[0].scale
    return tensors


def _policies(base_model: str, adapters: Sequence[str], soup_weights: Sequence[Sequence[float]]) -> list[Policy]:
    policies = [_policy(base_model, folder) for folder in adapters]
    factors = [policy.factors for policy in policies]
    return [*policies, *(Policy(base_model, interpolate_factors(factors, point)) for point in soup_weights)]


def _policy(base_model: str, folder: str) -> Policy:
    return Policy(base_model, read_adapter(Path(folder), base_model).factors, Path(folder))
