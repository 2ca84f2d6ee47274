"""What decoding must agree with: whole texts under each policy apart, fused in float64, without caches or batches."""

from collections.abc import Callable, Sequence

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.method.divergences import Alpha, Divergence, ForwardKL, JensenShannon, ReverseKL

Model = PreTrainedModel | PeftModel
Scores = Callable[[Sequence[int]], Tensor]

DIVERGENCES: dict[str, Divergence] = {
    "reverse KL": ReverseKL(),
    "forward KL": ForwardKL(),
    "alpha": Alpha(0.5),
    "JSD": JensenShannon(),
}


def fused_scores(
    models: Sequence[Model], weights: Sequence[float], divergence: str, reference: Model, prompt: Sequence[int]
) -> Scores:
    """Return a function from the tokens behind a prompt to the fused cumulative scores of the next one, (V,)."""
    w = torch.tensor(weights, dtype=torch.float64)[:, None]

    def scores(tokens: Sequence[int]) -> Tensor:
        s = torch.stack([cumulative(model, prompt, tokens) for model in models])
        if divergence == "reverse KL":
            return (w * s).sum(0)
        if divergence == "forward KL":
            return -(w.log() - s).logsumexp(0)
        if divergence == "alpha":
            return -2 * (w.log() - 0.5 * s).logsumexp(0)
        s0 = cumulative(reference, prompt, tokens)
        u = (s - s0).exp()
        v = (w * (2 * u / (1 + u)).log()).sum(0)
        return s0 + v - (2 - v.exp()).log()

    return scores


@torch.no_grad()
def cumulative(model: Model, prompt: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """Return the log-probabilities of the tokens followed by each token of the vocabulary, (V,), float64."""
    logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 :].double()
    logps = logits.log_softmax(dim=-1)
    said = sum((logps[place, token] for place, token in enumerate(tokens)), torch.zeros((), dtype=torch.float64))
    return logps[-1] + said


def greedy(scores: Scores, count: int) -> list[int]:
    """Return the likeliest token, so many times."""
    tokens: list[int] = []
    for _ in range(count):
        tokens.append(int(scores(tokens).argmax()))
    return tokens
