"""Forwards of K adapter groups along paths of segments: what rows share is computed once for all of them."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from sipo_pl.engine.decoding.attention import attend_along
from sipo_pl.engine.decoding.segments import CacheLevel, SegmentPath
from sipo_pl.engine.logprobs.packed_attention import NAME as PACKED
from sipo_pl.engine.logprobs.packed_sequences import Packed
from sipo_pl.engine.logprobs.response_logprobs import decoder, has_linear_head, logits_of, token_logps
from sipo_pl.engine.models.device_map import device_of, is_spread
from sipo_pl.engine.models.text_limit import TextLimit, check_tokens, text_limit

TokenIds = tuple[int, ...]


class GroupedForward:
    """Runs each row once in each of K groups.

    The groups of a model are the active adapters of its stack. There are several models where policies have base models
    of their own; these are of one architecture and one vocabulary.

    Args:
        models: base models with their stacks, on one device.
        owners: for each group, the index of its model; a model's active adapters follow the order of its groups.
    """

    def __init__(self, models: Sequence[PreTrainedModel], owners: Sequence[int]) -> None:
        self.device = device_of(models[0].get_input_embeddings())
        self.is_spread = any(is_spread(model) for model in models)
        self.dtype, self.groups = models[0].dtype, len(owners)
        self.hidden_size = models[0].config.get_text_config().hidden_size
        self.vocabulary = models[0].config.get_text_config().vocab_size
        # one head may then stand for a weighted sum of several; in bfloat16 the sum of states would be rounded
        self.has_linear_head = self.dtype == torch.float32 and len(models) == 1 and has_linear_head(models[0])
        self._members = [
            (model, torch.tensor([k for k, owner in enumerate(owners) if owner == index], device=self.device))
            for index, model in enumerate(models)
        ]

    @cached_property
    def text_limit(self) -> TextLimit | None:
        """Return the longest text that all models take, where there is one."""
        found = [limit for model, _ in self._members if (limit := text_limit(model))]
        return min(found, default=None, key=lambda limit: limit.tokens)

    def check_text(self, tokens: int, what: str = "a prompt with its response") -> None:
        """Raise UserError where the models cannot take a text of so many tokens."""
        if self.text_limit:
            self.text_limit.check(tokens, what)

    @property
    def token_bytes(self) -> int:
        """Return the bytes that one token's keys and values take in all groups."""
        return sum(
            2
            * config.num_hidden_layers
            * config.num_key_value_heads
            * _head_size(config)
            * model.dtype.itemsize
            * len(k)
            for model, k in self._members
            for config in [model.config.get_text_config()]
        )

    def read(
        self, texts: Sequence[TokenIds], above: Sequence[CacheLevel], parents: Sequence[int], keep: bool = True
    ) -> tuple[Tensor, CacheLevel]:
        """Compute texts that continue segments above them, each text one segment of a new level.

        Args:
            texts: S token sequences, none of them empty.
            above: the levels that they continue, top first.
            parents: for each text, the segment of the lowest level above.
            keep: whether anything will continue the texts.

        Returns:
            Hidden states of all tokens, (K, S, longest, hidden), padded on the right, and the new level.
        """
        lengths = torch.tensor([len(text) for text in texts])
        ids = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
        ids[torch.arange(ids.shape[1]) < lengths[:, None]] = torch.tensor([token for text in texts for token in text])
        level = self.below(above, parents, ids.shape[1])
        level.kept = keep
        check_tokens(int(ids.max()), self.vocabulary)
        if self.text_limit:
            self.check_text(int((level.offsets + lengths.to(self.device)).max()))
        hidden = self.run(ids.to(self.device), above, level)
        level.lengths = lengths.to(self.device)
        return hidden, level

    def below(self, above: Sequence[CacheLevel], parents: Sequence[int], capacity: int) -> CacheLevel:
        """Return a level of empty segments that continue `parents`."""
        owner = torch.tensor(parents, dtype=torch.long, device=self.device)
        offsets = above[-1].offsets[owner] + above[-1].lengths[owner] if above else torch.zeros_like(owner)
        return CacheLevel.empty(capacity, owner, offsets)

    def run(
        self, ids: Tensor, above: Sequence[CacheLevel], level: CacheLevel, members: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Add tokens to the segments of a level; the level's lengths are left to the caller.

        Args:
            ids: (R, n), int64, one row a segment; more than one token only for empty segments.
            above: the levels that it continues, top first.
            level: the level.
            members: see `SegmentPath`.

        Returns:
            Hidden states, (K, R, n, hidden).
        """
        parts, layers = [], 0
        for model, groups in self._members:
            path = SegmentPath(above, level, members, layers)
            positions = path.asks[:, None] + torch.arange(ids.shape[1], device=self.device)
            with attend_along(model):
                output = decoder(model)(
                    input_ids=ids.repeat(len(groups), 1),
                    position_ids=positions.repeat(len(groups), 1),
                    use_cache=False,
                    path=path,
                )
            states = output.last_hidden_state.to(self.device)
            parts.append(states.view(len(groups), *ids.shape, -1))
            layers += model.config.get_text_config().num_hidden_layers
        return self._in_order(parts)

    def packed_states(self, packed: Packed) -> Tensor:
        """Return hidden states, (K, length, hidden), of one sequence of packed rows, which every group reads."""
        if self.text_limit:
            self.check_text(int(packed.positions.max()) + 2)  # the last token of a response is not among them
        parts = []
        for model, groups in self._members:
            with attend_along(model, PACKED):
                output = decoder(model)(
                    input_ids=packed.input_ids.repeat(len(groups), 1),
                    position_ids=packed.positions.repeat(len(groups), 1),
                    use_cache=False,
                    packed=packed.layout.repeated(len(groups)),
                )
            parts.append(output.last_hidden_state.to(self.device))
        return self._in_order(parts)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits, (K, R, V), of hidden states, (K, R, hidden)."""
        found = [logits_of(model, self._of(groups, hidden)) for model, groups in self._members]
        return self._in_order([logits.to(self.device) for logits in found])

    def token_logps(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the log-probabilities (K, n) of tokens (n,), given the hidden states before them (K, n, hidden)."""
        parts = []
        for model, groups in self._members:
            logps = token_logps(model, self._of(groups, hidden).flatten(0, 1), tokens.repeat(len(groups)))
            parts.append(logps.view(len(groups), -1))
        return self._in_order(parts)

    def _of(self, groups: Tensor, hidden: Tensor) -> Tensor:
        return hidden if len(self._members) == 1 else hidden[groups]

    def _in_order(self, parts: Sequence[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        owned = torch.cat([groups for _, groups in self._members])
        return torch.cat(list(parts))[owned.argsort()]


def _head_size(config: PreTrainedConfig) -> int:
    own = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # latent attention (DeepSeek) has larger heads than its config's head size
    return max(own, getattr(config, "qk_head_dim", None) or 0, getattr(config, "v_head_dim", None) or 0)
