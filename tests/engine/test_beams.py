"""Beam search against a plain one over whole texts, against all texts, and against transformers."""

import itertools

import pytest
import torch
from fused import DIVERGENCES, Model, Scores, cumulative, fused_scores

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.lora.policies import PolicySet

NO_EOS = 10_000
ENDS = (1, 3, 4)
GENERATOR = torch.Generator().manual_seed(1)
PROMPTS = [tuple(torch.randint(4, 250, (n,), generator=GENERATOR).tolist()) for n in (5, 12, 3, 8)]
REVERSE = DIVERGENCES["reverse KL"]


def plain_search(scores: Scores, prompt_length: int, width: int, limit: int, *ends: int) -> Generated:
    """Return what a beam search over whole texts finds, by the rules of transformers 4.34."""
    beams, finished = [()], []
    for step in range(limit):
        totals = {(*beam, token): total for beam in beams for token, total in enumerate(scores(beam).tolist())}
        ranked = sorted(totals.items(), key=lambda item: -item[1])[: (1 + len(ends)) * width]
        for text, total in ranked[:width]:
            if text[-1] in ends:
                finished.append((total / (prompt_length + step), text[:-1], text[-1]))
        finished = sorted(finished, reverse=True)[:width]
        going = [(text, total) for text, total in ranked if text[-1] not in ends][:width]
        if len(finished) == width and finished[-1][0] >= ranked[0][1] / (prompt_length + step + 1):
            break
        beams = [text for text, _ in going]
    else:
        finished += [(total / (prompt_length + limit), text, -1) for text, total in going]
    _, text, end = max(finished)
    return Generated(list(text), "length") if end == -1 else Generated(list(text), "eos", end)


def search(
    policies: PolicySet,
    rows: list[Request],
    divergence: str = "reverse KL",
    eos_id: int | list[int] = NO_EOS,
    **settings: int,
) -> list[Generated]:
    decoding = Decoding(**{"beams": 3, "max_new_tokens": 7, **settings})
    return generate(policies, rows, decoding, DIVERGENCES[divergence], eos_id, seed=0)


def end_token(policies: PolicySet, place: int = 4) -> int:
    """Return the token at a place of a greedy text, which may serve as an end."""
    return search(policies, [Request("", PROMPTS[0], (0.6, 0.4))], beams=1)[0].token_ids[place]


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("end", ENDS)
def test_beams_are_those_of_a_plain_search(
    policies: PolicySet, models: list[Model], name: str, width: int, end: int
) -> None:
    eos_id = end_token(policies, end)
    rows = [Request(str(p), prompt, (0.6, 0.4)) for p, prompt in enumerate(PROMPTS)]
    found = search(policies, rows, name, eos_id, beams=width)
    for prompt, one in zip(PROMPTS, found, strict=True):
        scores = fused_scores(models[:2], (0.6, 0.4), name, models[2], prompt)
        assert one == plain_search(scores, len(prompt), width, 7, eos_id)


def test_several_end_tokens_leave_enough_beams(policies: PolicySet, models: list[Model]) -> None:
    ends = sorted({end_token(policies, place) for place in (0, 1, 3, 4)})
    rows = [Request(str(p), prompt, (0.6, 0.4)) for p, prompt in enumerate(PROMPTS)]
    found = search(policies, rows, "reverse KL", ends, beams=3)
    for prompt, one in zip(PROMPTS, found, strict=True):
        scores = fused_scores(models[:2], (0.6, 0.4), "reverse KL", models[2], prompt)
        assert one == plain_search(scores, len(prompt), 3, 7, *ends)
    assert len({one.end_id for one in found}) > 1


def test_the_plain_search_meets_both_ends(policies: PolicySet) -> None:
    """Without this the test above could compare cut texts alone."""
    rows = [Request(f"{p}", prompt, (0.6, 0.4)) for p, prompt in enumerate(PROMPTS)]
    ends = [end_token(policies, end) for end in ENDS]
    found = [one for name in DIVERGENCES for eos_id in ends for one in search(policies, rows, name, eos_id)]
    assert {one.finish_reason for one in found} == {"eos", "length"}
    assert len({len(one.token_ids) for one in found}) > 2


def test_beams_as_many_as_texts_find_the_best_of_all(policies: PolicySet, models: list[Model]) -> None:
    prompt, eos_id = PROMPTS[2], 2
    scores = fused_scores(models[:2], (0.6, 0.4), "forward KL", models[2], prompt)
    first = scores([])
    texts = {(): float(first[eos_id]) / len(prompt)}
    likeliest = first.topk(40).indices.tolist()  # the others are too unlikely to begin the best text
    for token in (one for one in likeliest if one != eos_id):
        for other, total in enumerate(scores([token]).tolist()):
            text = (token,) if other == eos_id else (token, other)
            texts[text] = total / (len(prompt) + len(text))
    best = max(texts, key=lambda text: texts[text])
    found = search(policies, [Request("", prompt, (0.6, 0.4))], "forward KL", eos_id, beams=300, max_new_tokens=2)
    assert tuple(found[0].token_ids) == best


@pytest.mark.parametrize("policy", [0, 1])
def test_a_corner_is_the_beam_search_of_transformers(policies: PolicySet, models: list[Model], policy: int) -> None:
    # without an end all texts are equally long, and its other divisor does not matter
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        made = models[policy].generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            num_beams=3,
            max_new_tokens=7,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        weights = (float(policy == 0), float(policy == 1))
        assert search(policies, [Request("", prompt, weights)])[0].token_ids == made[0, len(prompt) :].tolist()


def test_rows_together_are_rows_alone(policies: PolicySet) -> None:
    eos_id = end_token(policies)
    points = ((0.6, 0.4), (0.2, 0.8), (1.0, 0.0), (0.5, 0.2, 0.3))
    pairs = itertools.product(PROMPTS, points)
    rows = [Request(str(index), prompt, point) for index, (prompt, point) in enumerate(pairs)]
    for name in ("reverse KL", "JSD"):
        together = search(policies, rows, name, eos_id, max_length=16)  # rows end at different steps
        for batch_rows in (1, 7):
            assert search(policies, rows, name, eos_id, max_length=16, batch_rows=batch_rows) == together


def test_beams_find_likelier_texts_than_greedy(policies: PolicySet, models: list[Model]) -> None:
    gains = []
    for prompt in PROMPTS:
        row = Request("", prompt, (1.0, 0.0))
        totals = []
        for beams in (1, 5):
            text = search(policies, [row], beams=beams)[0].token_ids
            totals.append(float(cumulative(models[0], prompt, text[:-1])[text[-1]]))
        gains.append(totals[1] - totals[0])
    assert max(gains) > 0.1


def test_a_prompt_without_room_gives_an_empty_cut_text(policies: PolicySet) -> None:
    rows = [Request(str(p), prompt, (0.6, 0.4)) for p, prompt in enumerate(PROMPTS)]
    found = search(policies, rows, max_length=6)
    assert [len(one.token_ids) for one in found] == [1, 0, 3, 0]
    assert {one.finish_reason for one in found} == {"length"}
    assert search(policies, []) == []


def test_progress_counts_every_request_once(policies: PolicySet) -> None:
    told: list[tuple[int, int]] = []
    rows = [Request(str(p), prompt, (0.6, 0.4)) for p, prompt in enumerate(PROMPTS)]
    generate(policies, rows, Decoding(beams=3, max_length=14), REVERSE, NO_EOS, 0, lambda *counts: told.append(counts))
    assert sum(ended for ended, _ in told) == len(rows)
    assert sum(positions for _, positions in told) == sum(14 - len(prompt) for prompt in PROMPTS)
