"""Requests that join, leave and are cancelled, each with the text that it would have alone."""

from functools import cache

import pytest
import torch
from fused import DIVERGENCES

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.decoding.streaming import Event, Stream, stream
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import ReverseKL

ENDS = 7  # a token that texts of the lively model reach now and then
SEED = 4
GENERATOR = torch.Generator().manual_seed(11)
POINTS = ((0.7, 0.3), (0.2, 0.8), (1.0, 0.0), (0.0, 1.0))
SETTINGS = (Decoding(max_new_tokens=9), Decoding(max_new_tokens=16), Decoding(1.3, 0.9, max_new_tokens=12))


def _requests() -> list[tuple[Request, Decoding]]:
    found = []
    for index in range(9):
        prompt = tuple(torch.randint(8, 250, (3 + 17 * (index % 5),), generator=GENERATOR).tolist())
        found.append((Request(f"row {index}", prompt, POINTS[index % 4]), SETTINGS[index % 3]))
    shared = found[0][0].prompt_ids
    return [*found, *((Request(f"at {w}", shared, w), SETTINGS[0]) for w in POINTS)]


REQUESTS = _requests()


@cache
def alone(policies: PolicySet, rule: str = "reverse KL") -> dict[str, Generated]:
    """Return what each request gets from the batch stages, decoded by itself."""
    return {
        request.key: generate(policies, [request], decoding, DIVERGENCES[rule], ENDS, SEED)[0]._replace(end_id=None)
        for request, decoding in REQUESTS
    }


class Heard:
    """What events told of each request."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.ends: dict[str, str] = {}

    def hear(self, events: list[Event]) -> None:
        for event in events:
            assert event.key not in self.ends
            tokens = self.tokens.setdefault(event.key, [])
            if event.token_id is not None:
                tokens.append(event.token_id)
            if event.finish_reason:
                self.ends[event.key] = event.finish_reason

    @property
    def responses(self) -> dict[str, Generated]:
        return {key: Generated(self.tokens[key], reason) for key, reason in self.ends.items()}  # type: ignore[arg-type]


def drain(running: Stream, heard: Heard) -> None:
    for _ in range(500):
        if not running.busy:
            break
        heard.hear(running.step())
    assert running.step() == []
    assert running.batch.rows is None  # nothing is held while nothing runs


@pytest.mark.parametrize(("rule", "slots"), [*((rule, 3) for rule in DIVERGENCES), ("reverse KL", 32)])
def test_texts_are_those_of_the_batch_whoever_joins_and_leaves(policies: PolicySet, rule: str, slots: int) -> None:
    heard, coming = Heard(), list(REQUESTS)
    with stream(policies, 2, DIVERGENCES[rule], ENDS, slots=slots, seed=SEED) as running:
        while coming:
            for _ in range(min(len(coming), 1 + len(coming) % 3)):
                running.add(*coming.pop(0))
            for _ in range(3):  # the others are in the middle of their texts when the next ones join
                heard.hear(running.step())
        drain(running, heard)
    expected = alone(policies, rule)
    assert heard.responses == expected
    assert {one.finish_reason for one in alone(policies).values()} == {"eos", "length"}
    assert len({tuple(one.token_ids) for one in expected.values()}) > 8


def test_any_of_several_end_tokens_ends_an_answer(policies: PolicySet) -> None:
    request, decoding = REQUESTS[0]
    (whole,) = generate(policies, [request], decoding, ReverseKL(), 10_000, SEED)
    ends = {whole.token_ids[3], whole.token_ids[5]}
    place = next(index for index, token in enumerate(whole.token_ids) if token in ends)
    heard = Heard()
    with stream(policies, 2, ReverseKL(), ends, slots=1, seed=SEED) as running:
        running.add(request, decoding)
        drain(running, heard)
    assert heard.responses[request.key] == Generated(whole.token_ids[:place], "eos")


def test_a_cancelled_request_is_heard_of_no_more_and_the_others_go_on(policies: PolicySet) -> None:
    heard = Heard()
    with stream(policies, 2, ReverseKL(), ENDS, slots=4, seed=SEED) as running:
        for request, decoding in REQUESTS:
            running.add(request, decoding)
        for _ in range(2):
            heard.hear(running.step())
        gone = [*list(heard.tokens)[:2], REQUESTS[-1][0].key]  # two that run, and one that waits
        gone = [key for key in gone if key not in heard.ends]
        assert len(gone) == 3
        before = {key: list(heard.tokens.get(key, [])) for key in gone}
        assert all(running.cancel(key) for key in gone)
        assert not running.cancel(gone[0])
        drain(running, heard)
    assert {key: heard.tokens.get(key, []) for key in gone} == before
    assert heard.responses == {key: one for key, one in alone(policies).items() if key not in gone}


def test_slots_follow_the_requests(policies: PolicySet) -> None:
    heard = Heard()
    with stream(policies, 2, ReverseKL(), 10_000, slots=6, seed=SEED) as running:
        for index in range(8):
            request = Request(str(index), (5, 6, 7 + index), POINTS[0])
            running.add(request, Decoding(max_new_tokens=70 if index == 0 else 4))
        heard.hear(running.step())
        assert running.batch.rows is not None
        assert (running.batch.rows.slots.rows, running.busy) == (6, 8)
        for _ in range(12):
            heard.hear(running.step())
        assert (running.batch.rows.slots.rows, len(running.batch.rows.slots.held), running.busy) == (1, 1, 1)
        running.add(Request("late", (9,) * 90, POINTS[1]), Decoding(max_new_tokens=3))
        heard.hear(running.step())
        assert running.batch.rows.slots.rows == 2
        assert running.batch.rows.slots.prompts.capacity == 128
        drain(running, heard)
    assert {key: len(tokens) for key, tokens in heard.tokens.items()} == {
        "0": 70,
        **dict.fromkeys("1234567", 4),
        "late": 3,
    }


def test_other_work_between_steps_leaves_a_stream_as_it_is(policies: PolicySet) -> None:
    (request, decoding), heard = REQUESTS[1], Heard()
    with stream(policies, 2, ReverseKL(), ENDS, slots=2, seed=SEED) as running:
        running.add(request, decoding)
        while running.busy:
            heard.hear(running.step())
            with policies.active([2, 0, 1]):
                pass
    assert heard.responses[request.key] == alone(policies)[request.key]


def test_what_cannot_be_decoded_is_refused_at_once(policies: PolicySet) -> None:
    request = Request("a", (5,) * 20, POINTS[0])
    with stream(policies, 2, ReverseKL(), ENDS, slots=2, seed=SEED) as running:
        with pytest.raises(UserError, match="the prompt has 20 tokens, and prompt and answer together may have 20"):
            running.add(request, Decoding(max_length=20))
        with pytest.raises(UserError, match="beams"):
            running.add(request, Decoding(beams=2))
        running.add(request, Decoding(max_new_tokens=2))
        with pytest.raises(UserError, match="'a' is being decoded already"):
            running.add(request, Decoding())
        assert running.busy == 1
