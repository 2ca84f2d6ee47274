"""The size of a model, by its config alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ITEM_BYTES = {"float32": 4.0, "bfloat16": 2.0}
FOUR_BITS = 0.55  # bytes of a weight with its share of the scales


@dataclass(frozen=True)
class ModelSize:
    """A decoder with gated layers, as nearly all of today's are.

    Args:
        layers: how many
        hidden: width of the states
        inner: width inside a layer
        heads: of queries
        key_heads: of keys and values
        head_size: of each
        vocabulary: tokens
        tied: the embedding is the head as well
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ModelSize":
        """Read the keys of a `config.json`."""
        text = config.get("text_config") or config
        hidden, heads = text["hidden_size"], text["num_attention_heads"]
        return cls(
            layers=text["num_hidden_layers"],
            hidden=hidden,
            inner=text.get("intermediate_size") or 4 * hidden,
            heads=heads,
            key_heads=text.get("num_key_value_heads") or heads,
            head_size=text.get("head_dim") or hidden // heads,
            vocabulary=text["vocab_size"],
            tied=bool(text.get("tie_word_embeddings")),
        )

    @property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def linear(self) -> int:
        """Return the weights that each token is multiplied by, the head's not among them."""
        return self.layers * sum(wide * high for wide, high in self._shapes.values())

    @property
    def with_head(self) -> int:
        """Return the weights that a token whose next one is predicted is multiplied by."""
        return self.linear + self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        return self.linear + self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def cached(self) -> int:
        """Return the numbers that are kept of a token, its keys and values in all layers."""
        return 2 * self.layers * self.key_heads * self.head_size

    def adapter(self, rank: int, targets: Iterable[str]) -> int:
        """Return the weights of a LoRA adapter; an unknown target counts as a square one."""
        square = (self.hidden, self.hidden)
        return self.layers * rank * sum(sum(self._shapes.get(target, square)) for target in targets)

    def weight_bytes(self, dtype: str, quantized: bool) -> float:
        """Return the bytes of all weights."""
        if not quantized:
            return self.parameters * ITEM_BYTES[dtype]
        return self.linear * FOUR_BITS + (self.parameters - self.linear) * ITEM_BYTES[dtype]
