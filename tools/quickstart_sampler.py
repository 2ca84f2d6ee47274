"""Draws the answers of the quickstart data from a chat model, each under one of a few instructions."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sipo_pl.messages.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STYLES = {
    "child": "Explain it to a five year old in one short sentence.",
    "brief": "Answer in one short sentence.",
    "precise": "Answer in two sentences with precise terms.",
    "facts": "Answer in one sentence with many facts and examples.",
}
CANDIDATES = 64  # tokens that the nucleus is taken from at each step: the whole vocabulary is slow to sort


class Job(NamedTuple):
    """One answer to be drawn.

    Args:
        prompt: the raw prompt
        style: key of `STYLES`
        attempt: 0 for the first draw
    """

    prompt: str
    style: str
    attempt: int


class Answer(NamedTuple):
    """A finished answer: its text and its length in tokens, the end of turn included."""

    text: str
    tokens: int


def job_seed(seed: int, job: Job) -> int:
    """Return the seed of a job's noise: equal for equal jobs, whatever the order or the batch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{job.attempt}/{job.style}/{job.prompt}".encode()).digest()[:7])


def draw(
    logits: "torch.Tensor", generators: Sequence["torch.Generator"], temperature: float, top_p: float
) -> "torch.Tensor":
    """Draw the next tokens by nucleus sampling, with one noise generator a row.

    Args:
        logits: (rows, vocabulary), float
        generators: one per row
        temperature: divides the logits; above 0
        top_p: smallest probability mass that the nucleus holds, in (0, 1]

    Returns:
        Token ids, (rows,), int64.
    """
    import torch

    top, ids = (logits.float() / temperature).topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
    probabilities = top.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    top = top.masked_fill(before >= top_p, -torch.inf)
    uniform = torch.stack([torch.rand(top.shape[-1], generator=generator) for generator in generators]).to(top.device)
    gumbel = -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
    return ids.gather(-1, (top + gumbel).argmax(-1, keepdim=True)).squeeze(-1)


class Sampler:
    """Draws answers from a chat model.

    Each answer has a noise generator of its own, so that the batch it shares changes it by rounding only.

    Args:
        folder: model folder
        seed: seed of all noise
        max_new_tokens: longest answer, end of turn included; longer ones are cut and dropped
        temperature: sampling temperature
        top_p: nucleus mass
        end_of_turn: token that ends an answer
        device: where the model runs; the noise is drawn on the CPU

    Raises:
        UserError: if the tokenizer has no chat template or not this token.
    """

    def __init__(
        self,
        folder: str,
        seed: int,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        end_of_turn: str = "<|im_end|>",
        device: str = "cpu",
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from sipo_pl.interop.pretrained import read_tokenizer, read_weights

        self.tokenizer: PreTrainedTokenizerBase = read_tokenizer(folder, folder, padding_side="left")
        if self.tokenizer.chat_template is None or end_of_turn not in self.tokenizer.get_vocab():
            raise UserError(f"{folder}: expected a tokenizer with a chat template and the token {end_of_turn}")
        self.tokenizer.pad_token = self.tokenizer.pad_token or end_of_turn  # masked, so that any token will do
        self.end = self.tokenizer.get_vocab()[end_of_turn]
        model = read_weights(AutoModelForCausalLM, folder, folder, dtype=torch.float32)
        self.model: PreTrainedModel = model.eval().to(torch.device(device))
        self.seed, self.max_new_tokens, self.temperature, self.top_p = seed, max_new_tokens, temperature, top_p

    def chat(self, job: Job) -> str:
        """Return the rendered conversation that the model answers."""
        message = {"role": "user", "content": f"{job.prompt} {STYLES[job.style]}"}
        return str(self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def answer(self, jobs: Sequence[Job]) -> list[Answer | None]:
        """Return an answer per job, in order; None where it did not end within the limit.

        Rows that have ended leave the batch, so that short answers cost little.
        """
        import torch
        from transformers import DynamicCache

        generators = [torch.Generator().manual_seed(job_seed(self.seed, job)) for job in jobs]
        encoded = self.tokenizer(
            [self.chat(job) for job in jobs], padding=True, add_special_tokens=False, return_tensors="pt"
        ).to(self.model.device)
        inputs, mask, cache = encoded["input_ids"], encoded["attention_mask"], DynamicCache(config=self.model.config)
        alive = torch.arange(len(jobs), device=inputs.device)
        generated: list[list[int]] = [[] for _ in jobs]
        with torch.inference_mode():
            for _ in range(self.max_new_tokens):
                positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -inputs.shape[1] :]
                logits = self.model(
                    input_ids=inputs,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
                tokens = draw(logits, [generators[row] for row in alive], self.temperature, self.top_p)
                for row, token in zip(alive.tolist(), tokens.tolist(), strict=True):
                    generated[row].append(token)
                stay = tokens.ne(self.end).nonzero().squeeze(-1)
                if not len(stay):
                    break
                if len(stay) < len(alive):
                    cache.batch_select_indices(stay)
                    alive, mask, tokens = alive[stay], mask[stay], tokens[stay]
                inputs, mask = tokens[:, None], torch.cat([mask, mask.new_ones(len(stay), 1)], dim=-1)
        return [
            Answer(str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip(), len(ids))
            if ids[-1] == self.end
            else None
            for ids in generated
        ]
