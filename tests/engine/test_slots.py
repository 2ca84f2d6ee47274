"""Slots that rows take, leave and take again, and responses that do not depend on how many there are."""

from collections.abc import Iterator

import pytest
import torch
from families import own_states, tiny_family
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.decoding.slot_sizes import SlotSizes, common_header, prompt_places
from sipo_pl.engine.decoding.slots import Slots
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.method.divergences import Divergence, JensenShannon, ReverseKL

A, B, C, D = (5, 6, 7), (8, 9), (10, 11, 12, 13), (14,)
HEADER = tuple(range(20, 56))


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_family("Llama")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def slots_of(model: PreTrainedModel, rows: int, prompts: list[tuple[int, ...]]) -> Slots:
    return Slots(GroupedForward([model], [0, 0]), SlotSizes.of(prompts, rows, 6))


def holds(slots: Slots, slot: int, model: PreTrainedModel, text: tuple[int, ...]) -> None:
    expected: Tensor = own_states(model, text)[-1]
    torch.testing.assert_close(slots.hidden[:, slot], expected.expand(2, -1), rtol=1e-4, atol=1e-4)


def test_rows_begin_at_the_ends_of_their_prompts(model: PreTrainedModel) -> None:
    slots = slots_of(model, 3, [A, A, B])
    assert slots.admit([0, 1, 2], [A, A, B]) == 3
    for slot, prompt in enumerate((A, A, B)):
        holds(slots, slot, model, prompt)


def test_a_row_takes_the_slot_of_one_that_ended(model: PreTrainedModel) -> None:
    slots = slots_of(model, 2, [A, B, C])
    slots.admit([0, 1], [A, B])
    slots.step(torch.tensor([30, 40]))
    slots.step(torch.tensor([31, 41]))
    slots.release([0])
    assert slots.admit([0], [C]) == 1
    holds(slots, 0, model, C)
    slots.step(torch.tensor([50, 42]))
    holds(slots, 0, model, (*C, 50))
    holds(slots, 1, model, (*B, 40, 41, 42))


def test_free_slots_change_nothing_for_the_others(model: PreTrainedModel) -> None:
    slots = slots_of(model, 4, [A, B])
    slots.admit([2, 0], [A, B])
    slots.step(torch.tensor([30, 1, 40, 1]))
    slots.release([0])
    slots.step(torch.tensor([1, 1, 41, 1]))
    holds(slots, 2, model, (*A, 40, 41))


def test_more_prompts_than_places_follow_one_another(model: PreTrainedModel) -> None:
    slots = slots_of(model, 1, [A, B, C, D])
    assert len(slots.held) == 2
    for prompt in (A, B, C):
        assert slots.admit([0], [prompt]) == 1
        holds(slots, 0, model, prompt)
        slots.release([0])


def test_no_room_at_all_admits_nothing(model: PreTrainedModel) -> None:
    slots = slots_of(model, 4, [A] * 8 + [B] * 8 + [C] * 8 + [D] * 8 + [(15,)] * 8)
    assert len(slots.held) == 4
    assert slots.admit([0, 1, 2, 3], [A, B, C, D]) == 4
    slots.release([0])
    slots.held[0] = None
    slots.owner[0] = 0  # as if a row were still behind it
    assert slots.admit([0], [(15,)]) == 0


def test_slots_that_stay_keep_their_rows(model: PreTrainedModel) -> None:
    slots = slots_of(model, 3, [A, A, B])
    slots.admit([0, 1, 2], [A, A, B])
    slots.step(torch.tensor([30, 31, 32]))
    slots.select([2, 0, 2])
    slots.step(torch.tensor([40, 41, 42]))
    for slot, text in enumerate(((*B, 32, 40), (*A, 30, 41), (*B, 32, 42))):
        holds(slots, slot, model, text)


def test_a_header_is_computed_once_and_given_to_all(model: PreTrainedModel) -> None:
    prompts = [(*HEADER, *prompt) for prompt in (A, B)]
    slots = slots_of(model, 2, prompts)
    assert slots.header == HEADER
    slots.admit([0, 1], prompts)
    slots.step(torch.tensor([30, 31]))
    assert slots.prompts.capacity == 3
    for slot, text in enumerate(((*prompts[0], 30), (*prompts[1], 31))):
        holds(slots, slot, model, text)


def test_places_are_twice_the_prompt_places_among_successive_rows() -> None:
    assert prompt_places([A], 5) == 1
    assert prompt_places([A, A, B, B, C, C, D, D, D], 2) == 4  # a window may begin in the middle of a prompt
    assert prompt_places([A, A, A, A, B, C, D], 3) == 4  # no more than there are prompts
    assert prompt_places([A, A, A, A, B, B, B, B, C, C, C, C], 1) == 2


def test_a_common_header_is_long_and_leaves_a_token_to_each_prompt() -> None:
    longer = (*HEADER, 60, 61)
    assert common_header([longer, (*HEADER, 70)]) == HEADER
    assert common_header([longer, HEADER]) == HEADER[:-1]
    assert common_header([longer, longer[:-1]]) == longer[:-2]
    assert common_header([longer]) == ()
    assert common_header([longer, (1, *HEADER)]) == ()
    assert common_header([(1, 2, 3, 4), (1, 2, 5)], least=2) == (1, 2)
    assert common_header([(*HEADER[:16], 60), (*HEADER[:16], 70)]) == HEADER[:16]  # a chat template begins so
    assert common_header([(*HEADER[:15], 60), (*HEADER[:15], 70)]) == ()


# whole decodings

ENDS = 7  # a token that texts of the lively model reach now and then
UNEVEN = ((0.7, 0.3, 0.0), (0.2, 0.8, 0.0), (0.5, 0.2, 0.3), (0.0, 1.0, 0.0))


def requests(header: tuple[int, ...]) -> list[Request]:
    """Return rows of twenty prompts: the first two with several weights each, the others with one."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for index in range(20):
        prompt = (*header, *torch.randint(4, 250, (3 + index % 4,), generator=generator).tolist())
        found += [Request(f"{index}/{w}", prompt, w) for w in (UNEVEN if index < 2 else UNEVEN[index % 2 :][:1])]
    return found


def decode(policies: PolicySet, rows: list[Request], rule: Divergence, **settings: float) -> list[Generated]:
    decoding = Decoding(**{"max_new_tokens": 9, "max_length": 64, **settings})  # type: ignore[arg-type]
    return generate(policies, rows, decoding, rule, eos_id=ENDS, seed=4)


@pytest.mark.parametrize("rule", [ReverseKL(), JensenShannon()], ids=["reverse KL", "JSD"])
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.5, "top_p": 0.95}, {"beams": 2}], ids=["greedy", "sampled", "beams"]
)
@pytest.mark.parametrize("header", [HEADER, ()], ids=["header", "no header"])
def test_responses_do_not_depend_on_the_batch(
    policies: PolicySet, rule: Divergence, settings: dict[str, float], header: tuple[int, ...]
) -> None:
    rows = requests(header)
    together = decode(policies, rows, rule, batch_rows=100, **settings)
    assert len({tuple(one.token_ids) for one in together}) > len(rows) // 2
    for batch_rows in (1, 3, 16):
        assert decode(policies, rows, rule, batch_rows=batch_rows, **settings) == together
