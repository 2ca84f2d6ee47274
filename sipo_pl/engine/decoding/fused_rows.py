"""Rows in decoding: how likely each policy finds them so far, and the fused scores of their next tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sipo_pl.engine.decoding.options import Request
from sipo_pl.engine.decoding.slot_sizes import SlotSizes
from sipo_pl.engine.decoding.slots import Slots
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.method.divergences import Divergence


def log_probabilities(logits: Tensor) -> Tensor:
    """Return the scores that decoding sums over tokens and fuses, of the shape of `logits`."""
    return torch.log_softmax(logits, dim=-1)


@dataclass(frozen=True)
class Fusion:
    """How the groups of a forward become one distribution.

    Args:
        forward: the K groups, the reference among them where the rule needs it
        rule: the divergence whose fusion rule is used
        reference: position of the reference among the groups; none where the rule, or a single group, needs none
        cumulative: keep histories even where the rule does without, because scores of rows are compared
        scores_of: makes the scores of each policy of its logits
    """

    forward: GroupedForward
    rule: Divergence
    reference: int | None = None
    cumulative: bool = False
    scores_of: Callable[[Tensor], Tensor] = log_probabilities

    def fuse(self, logps: Tensor, history: Tensor | None, weights: Tensor) -> Tensor:
        """Return the fused scores of the next tokens, (R, V), float32, up to a constant per row.

        Args:
            logps: (K, R, V), log-probabilities, or logits, of the next token under each group.
            history: (K, R), sums of those of the tokens that each row has so far; none where the rule does without.
            weights: (R, P), those of the first groups, which are fused.
        """
        count = weights.shape[1]
        if history is not None:
            # only differences matter, and large sums would cost the last digits
            logps = logps + (history - history[:count].amin(dim=0))[..., None]
        if count == 1:
            return logps[0]
        reference = None if self.reference is None else logps[self.reference]
        return self.rule.fuse(logps[:count], weights, reference)


class FusedRows:
    """Rows under K groups, each in a slot, with their histories.

    Args:
        fusion: how scores are made.
        sizes: what the slots have room for.
        graphs: see `Slots`.
    """

    def __init__(self, fusion: Fusion, sizes: SlotSizes, graphs: bool = True) -> None:
        self.fusion, self.forward = fusion, fusion.forward
        self.slots = Slots(self.forward, sizes, graphs)
        device, groups = self.forward.device, self.forward.groups
        self.weights = torch.zeros(sizes.rows, groups, device=device)
        # free slots have the weights of one policy, so that every rule gives them finite scores
        self.weights[:, 0] = 1
        self.history: Tensor | None = None  # (K, R), log-probability of each row's tokens so far
        if fusion.cumulative or (fusion.rule.needs_history and groups > 1):
            self.history = torch.zeros(groups, sizes.rows, device=device)

    def admit(self, slots: Sequence[int], requests: Sequence[Request]) -> int:
        """Put rows into free slots, in order, as many as there is room for; return how many.

        The requests' weights follow the groups of the forward.
        """
        count = self.slots.admit(slots, [request.prompt_ids for request in requests])
        if count == 0:
            return 0
        taken = torch.tensor(slots[:count], dtype=torch.long, device=self.forward.device)
        self.weights[taken] = torch.tensor([request.weights for request in requests[:count]], device=taken.device)
        if self.history is not None:
            self.history[:, taken] = 0
        return count

    def grow(self, sizes: SlotSizes) -> None:
        """Make room for `sizes` where there is less. To be called before `scores`."""
        more = max(0, sizes.rows - self.slots.rows)
        self.slots.grow(sizes)
        self.weights = F.pad(self.weights, (0, 0, 0, more))
        self.weights[len(self.weights) - more :, 0] = 1
        if self.history is not None:
            self.history = F.pad(self.history, (0, more))

    def release(self, slots: Sequence[int]) -> None:
        """Free the slots of rows that ended."""
        self.slots.release(slots)

    def scores(self) -> Tensor:
        """Return the fused scores of the next tokens up to a constant per row, (R, V), float32."""
        if self.history is None and self.fusion.rule.is_linear and self.forward.has_linear_head:
            return self.forward.logits((self.slots.hidden * self.weights.T[..., None]).sum(dim=0, keepdim=True))[0]
        logps = self.forward.logits(self.slots.hidden)
        if self.history is not None:
            self.logps = logps = self.fusion.scores_of(logps)
        return self.fusion.fuse(logps, self.history, self.weights)

    def totals(self) -> Tensor:
        """Return the fused cumulative scores of the texts with their next tokens, (R, V); needs histories."""
        assert self.history is not None
        return self.scores() + self.history.amin(dim=0)[:, None]

    def advance(self, tokens: Tensor) -> None:
        """Append a token to each row, (R,), int64, and run the policies over it."""
        if self.history is not None:
            self.history = self.history + self.logps.gather(-1, tokens.expand(len(self.logps), -1)[..., None])[..., 0]
        self.slots.step(tokens)

    def select(self, slots: Sequence[int]) -> None:
        """Keep the rows of `slots`, in their order, and no other slot; a row may be kept several times.

        To be called between `scores` and `advance`.
        """
        kept = torch.tensor(slots, device=self.forward.device)
        self.slots.select(slots)
        self.weights = self.weights[kept]
        if self.history is not None:
            self.history, self.logps = self.history[:, kept], self.logps[:, kept]
