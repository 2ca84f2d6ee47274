"""Losses and their gradients, and log-probabilities from logits."""

import torch
from golden import MODEL, PURE, cases, check

from sipo_pl.engine.logprobs.response_logprobs import token_logps
from sipo_pl.engine.models.loading import load_base
from sipo_pl.use.functions import pair_loss

FIELDS = ("losses", "mean", "chosen_rewards", "rejected_rewards", "grad_policy_chosen", "grad_policy_rejected")


def test_losses_and_gradients() -> None:
    golden = cases("losses")["cases"]
    assert len(golden) == 30
    for case in golden:
        found = pair_loss(case["loss"], case["inputs"], case["beta"], **case["params"])
        for field in FIELDS:
            kind = "gradients" if field.startswith("grad") else "losses"
            check(kind, getattr(found, field), case[field], PURE, floor=1e-2)


def test_log_probabilities_of_logits() -> None:
    """With a head that lets hidden states pass as they are, the project's own sum is the released one's."""
    golden = cases("losses")["get_batch_logps"]
    logits = torch.tensor(golden["logits"])
    model = load_base(MODEL, "float32")
    model.set_output_embeddings(torch.nn.Identity())
    for row, labels, expected, average in zip(logits, golden["labels"], golden["sum"], golden["average"], strict=True):
        answers = [index for index, label in enumerate(labels) if label != -100 and index > 0]
        tokens = torch.tensor([labels[index] for index in answers], dtype=torch.long)
        logps = token_logps(model, row[[index - 1 for index in answers]], tokens) if answers else torch.zeros(0)
        check("log-probabilities", float(logps.sum()), expected, PURE)
        if average is not None:  # of nothing
            check("log-probabilities", float(logps.mean()), average, PURE)
