"""Implicit rewards of all policies in one forward: what a divergence makes of log pi_k(y|x) - log ref(y|x)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sipo_pl.engine.logprobs.shared_prompts import shared_prompt_logps
from sipo_pl.engine.logprobs.token_budget import forwards_of
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.method.divergences import Divergence
from sipo_pl.text.templates import Encoded


def implicit_rewards(
    policy_set: PolicySet,
    policies: int,
    rows: Sequence[Encoded],
    divergence: Divergence,
    beta: float,
    batch_tokens: int,
    on_rows: Callable[[int, int], None] = lambda rows, tokens: None,
) -> Tensor:
    """Score rows under policies, each against its own reference.

    Args:
        policy_set: the groups, references among them.
        policies: K, the number of policies, which are the first groups.
        rows: prompts with responses.
        divergence: what the policies were held to their references with.
        beta: scale of the implicit reward.
        batch_tokens: tokens of one forward at most, over all groups; a prompt counts once for its rows.
        on_rows: told rows and tokens of each forward, for progress.

    Returns:
        (K, len(rows)), float32, on the CPU.
    """
    logps, reference_logps = policy_logps(policy_set, policies, rows, batch_tokens, on_rows)
    return divergence.reward(logps - reference_logps, beta)


@torch.inference_mode()
def policy_logps(
    policy_set: PolicySet,
    policies: int,
    rows: Sequence[Encoded],
    batch_tokens: int,
    on_rows: Callable[[int, int], None] = lambda rows, tokens: None,
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each row's response under each policy, and under that policy's reference.

    Arguments are those of `implicit_rewards`.

    Returns:
        Two of (K, len(rows)), float32, on the CPU.
    """
    references = [policy_set.places[policy].reference for policy in range(policies)]
    groups = [*range(policies), *sorted(set(references))]
    logps = torch.empty(len(groups), len(rows))
    found: list[tuple[list[int], Tensor]] = []  # left on the device, which goes on while the next forward is packed

    with policy_set.active(groups) as forward:

        def score(tokens: int) -> None:
            done = {index for indices, _ in found for index in indices}
            missing = [index for index in range(len(rows)) if index not in done]
            for chosen in forwards_of([(rows[index],) for index in missing], tokens // len(groups)):
                indices = [missing[index] for index in chosen]
                batch = [rows[index] for index in indices]
                found.append((indices, shared_prompt_logps(forward, batch)))
                on_rows(len(batch), sum(len(row.input_ids) for row in batch) * len(groups))

        policy_set.memory_budget.run("model.batch_tokens", batch_tokens, score)
    for indices, part in found:
        logps[:, indices] = part.cpu()
    return logps[:policies], logps[[groups.index(reference) for reference in references]]
