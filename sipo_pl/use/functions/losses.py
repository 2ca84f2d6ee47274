"""Preference losses of lists of log-probabilities, with their gradients."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sipo_pl.messages.errors import UsageError, nearest
from sipo_pl.method.losses import LossOutput, dpo_loss, dpo_lw_loss, dpo_nll_loss, modpo_loss

LOSSES = ("dpo", "dpo_nll", "modpo", "dpolw")


class PairLoss(NamedTuple):
    """A loss of some pairs.

    Args:
        losses: of each pair
        mean: over the pairs
        chosen_rewards: reward of each preferred response that the loss compares
        rejected_rewards: the same of the others
        grad_policy_chosen: gradient of the mean with respect to log pi(y_w|x)
        grad_policy_rejected: with respect to log pi(y_l|x)
    """

    losses: list[float]
    mean: float
    chosen_rewards: list[float]
    rejected_rewards: list[float]
    grad_policy_chosen: list[float]
    grad_policy_rejected: list[float]


def pair_loss(
    loss: str,
    inputs: Mapping[str, Sequence[Any]],
    beta: float,
    alpha: float = 0.1,
    w: Sequence[float] = (),
    uses: str = "chosen_margin_reward",
) -> PairLoss:
    """Compute a loss of pairs and its gradients in float32.

    Args:
        loss: dpo, dpo_nll, modpo or dpolw, with _sigmoid or _hinge behind it.
        inputs: policy_chosen, policy_rejected, ref_chosen, ref_rejected, a number a pair; for dpo_nll also
            chosen_seq_lengths, by which the NLL term is divided; for dpolw contradict, whether the second objective
            prefers the rejected response; for modpo chosen_margin_reward and rejected_margin_reward, the other
            objectives' implicit rewards, a list a pair.
        beta: scale of the implicit reward.
        alpha: weight of the NLL term.
        w: weights of the objectives, the trained one's first.
        uses: name of the inputs' rewards of chosen responses.
    """
    name, _, kind = loss.rpartition("_")
    if name not in LOSSES or kind not in ("sigmoid", "hinge"):
        raise UsageError(f"loss: no loss {loss!r}{nearest(loss, [f'{one}_sigmoid' for one in LOSSES])}")
    chosen, rejected = (_tensor(inputs[key]).requires_grad_() for key in ("policy_chosen", "policy_rejected"))
    logps = (chosen, rejected, _tensor(inputs["ref_chosen"]), _tensor(inputs["ref_rejected"]))
    output = _compute(name, kind, logps, inputs, beta, alpha, w, uses)
    output.losses.mean().backward()
    losses = output.losses.detach()
    assert chosen.grad is not None
    assert rejected.grad is not None
    return PairLoss(
        losses.tolist(),
        float(losses.mean()),
        output.chosen_rewards.tolist(),
        output.rejected_rewards.tolist(),
        chosen.grad.tolist(),
        rejected.grad.tolist(),
    )


def _compute(
    name: str,
    kind: Any,
    logps: tuple[Tensor, Tensor, Tensor, Tensor],
    inputs: Mapping[str, Sequence[Any]],
    beta: float,
    alpha: float,
    w: Sequence[float],
    uses: str,
) -> LossOutput:
    if name == "dpo":
        return dpo_loss(*logps, beta=beta, kind=kind)
    if name == "dpo_nll":
        lengths = _tensor(inputs["chosen_seq_lengths"])
        return dpo_nll_loss(*logps, chosen_lengths=lengths, beta=beta, alpha=alpha, kind=kind)
    if name == "dpolw":
        second = 1 - 2 * _tensor(inputs["contradict"])
        signs = torch.stack([torch.ones_like(second), second], dim=1)
        return dpo_lw_loss(*logps, signs=signs, weights=w, beta=beta, kind=kind)
    better, worse = (_with_trained(inputs[key]) for key in (uses, uses.replace("chosen", "rejected")))
    return modpo_loss(*logps, chosen_scores=better, rejected_scores=worse, weights=w, trained=0, beta=beta, kind=kind)


def _with_trained(rewards: Sequence[Sequence[float]]) -> Tensor:
    """Return rewards of all objectives, the trained one first, whose own reward no loss reads."""
    return torch.nn.functional.pad(_tensor(rewards), (1, 0))


def _tensor(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
