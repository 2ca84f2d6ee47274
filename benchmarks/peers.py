"""Other ways to the same numbers: as the released code goes about it, plain peft in batches, transformers' generate."""

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache

from sipo_pl.engine.decoding.options import Request
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import TokenBatch, collate


def left_padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask of prompts, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


@torch.inference_mode()
def fuse_in_batches(model: PeftModel, requests: Sequence[Request], tokens: int, batch: int) -> list[list[int]]:
    """MOD with plain peft: a cache for each policy, an adapter switch for each forward, rows in batches."""
    texts: list[list[int]] = []
    for start in range(0, len(requests), batch):
        rows = requests[start : start + batch]
        weights = torch.tensor([row.weights for row in rows], device=model.device)
        texts += _fuse(model, [row.prompt_ids for row in rows], weights, tokens, with_base=False)
    return texts


@torch.inference_mode()
def fuse_as_released(model: PeftModel, requests: Sequence[Request], tokens: int) -> list[list[int]]:
    """MOD as released: row by row, one forward a policy and token, and one of the base model that goes unused."""
    return [
        _fuse(model, [row.prompt_ids], torch.tensor([row.weights], device=model.device), tokens, with_base=True)[0]
        for row in requests
    ]


def _fuse(
    model: PeftModel, prompts: Sequence[tuple[int, ...]], weights: Tensor, tokens: int, with_base: bool
) -> list[list[int]]:
    ids, mask = left_padded(prompts, model.device)
    policies = weights.shape[1]
    caches = [DynamicCache(config=model.config) for _ in range(policies + with_base)]
    made: list[Tensor] = []
    step = ids
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    for _ in range(tokens):
        fused = torch.zeros((), device=model.device)
        for k in range(policies):
            model.set_adapter(str(k))
            logits = _last_logits(model, step, mask, positions, caches[k])
            fused = fused + weights[:, k, None] * torch.log_softmax(logits, dim=-1)
        if with_base:
            with model.disable_adapter():
                _last_logits(model, step, mask, positions, caches[-1])
        step = fused.argmax(dim=-1, keepdim=True)
        made.append(step)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = mask.sum(dim=1, keepdim=True) - 1
    return torch.cat(made, dim=1).tolist()


def _last_logits(model: PeftModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    output = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
    return output.logits[:, -1].float()


@torch.inference_mode()
def generate_one_policy(model: PeftModel, requests: Sequence[Request], tokens: int, batch: int) -> None:
    """transformers' generate of the first policy alone: half the work or less."""
    model.set_adapter("0")
    for start in range(0, len(requests), batch):
        ids, mask = left_padded([row.prompt_ids for row in requests[start : start + batch]], model.device)
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )


@torch.inference_mode()
def rewards_with_peft(
    model: PeftModel, policies: int, rows: Sequence[Encoded], beta: float, batch: int, reference_each: bool
) -> Tensor:
    """Implicit rewards with plain peft, (policies, rows): a forward for each policy, the base once or each time."""
    columns = []
    for start in range(0, len(rows), batch):
        tokens = collate(rows[start : start + batch]).to(model.device)
        column: list[Tensor] = []
        for k in range(policies):
            model.set_adapter(str(k))
            policy = response_logps_with_peft(model, tokens)
            if k == 0 or reference_each:
                with model.disable_adapter():
                    reference = response_logps_with_peft(model, tokens)
            column.append(beta * (policy - reference))
        columns.append(torch.stack(column))
    return torch.cat(columns, dim=1)


def response_logps_with_peft(model: PeftModel, tokens: TokenBatch) -> Tensor:
    """Return the log-probabilities of responses, (rows,), through the logits of all positions."""
    logits = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).logits[:, :-1].float()
    found = torch.log_softmax(logits, -1).gather(-1, tokens.input_ids[:, 1:, None])[..., 0]
    return (found * tokens.response_mask[:, 1:]).sum(dim=1)
