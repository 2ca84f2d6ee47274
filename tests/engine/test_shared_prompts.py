"""A prompt computed once for all its responses gives what every response alone gives."""

from pathlib import Path

import torch

from sipo_pl.engine.logprobs.response_logprobs import response_logps
from sipo_pl.engine.logprobs.shared_prompts import shared_prompt_logps
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.loading import load_base
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import TokenBatch, collate
from tests.tiny import make_tiny_adapter

PROMPTS = ([5, 6, 7], [5, 6, 7], [9], [5, 6, 7, 8, 9, 10], [9])
RESPONSES = ([11, 2], [12, 13, 14, 15, 2], [2], [16, 2], [17, 18, 19, 2])  # one is EOS alone


def test_shared_prompts_give_the_log_probabilities_of_each_row_alone(tiny_model: Path, tmp_path: Path) -> None:
    adapters = [read_adapter(make_tiny_adapter(tmp_path / str(seed), tiny_model, seed)).factors for seed in (1, 2)]
    stack = LoRAStack(load_base(str(tiny_model), "float32"), sorted(adapters[0]))
    stack.stack([*adapters, {}])
    rows = [Encoded(prompt + response, len(prompt)) for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
    with torch.inference_mode():
        shared = shared_prompt_logps(GroupedForward([stack.model], [0, 0, 0]), rows)
        alone = [
            response_logps(stack.model, TokenBatch(*(tensor.repeat(3, 1) for tensor in collate([row])))) for row in rows
        ]
    assert not torch.allclose(shared[0], shared[1])
    torch.testing.assert_close(shared, torch.stack(alone, dim=1), rtol=1e-5, atol=1e-5)
