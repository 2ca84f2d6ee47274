"""Attention along paths gives what a model's own forward gives, whatever rows share and however tokens come."""

from collections.abc import Iterator

import pytest
import torch
from families import FAMILIES, VOCABULARY, own_states, tiny_family
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.models.model_check import check_model
from sipo_pl.messages.errors import UserError

HEADER = tuple(range(3, 12))
PROMPTS = [(20, 21, 22), (30, 31, 32, 33, 34), (40,)]
OWNERS = [0, 0, 1, 2, 1]  # the prompt of each response
LENGTH = 6
GROUPS = 2
RESPONSES = torch.randint(3, VOCABULARY, (len(OWNERS), LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_family(request.param)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def close(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-4, atol=1e-5 * max(1.0, scale))


def alone(model: PreTrainedModel, header: tuple[int, ...] = HEADER) -> Tensor:
    """Return the states of all responses, each text computed alone, (R, tokens, hidden)."""
    texts = [[*header, *PROMPTS[owner], *RESPONSES[row].tolist()] for row, owner in enumerate(OWNERS)]
    return torch.stack([own_states(model, text)[-LENGTH:] for text in texts])


def test_a_prompt_alone(model: PreTrainedModel) -> None:
    hidden, level = GroupedForward([model], [0, 0]).read(PROMPTS, [], [0] * len(PROMPTS))
    assert level.lengths.tolist() == [3, 5, 1]
    for place, prompt in enumerate(PROMPTS):
        close(hidden[:, place, : len(prompt)], own_states(model, prompt))


def test_prompts_behind_a_header(model: PreTrainedModel) -> None:
    forward = GroupedForward([model], [0] * GROUPS)
    _, header = forward.read([HEADER], [], [0])
    hidden, level = forward.read(PROMPTS, [header], [0] * len(PROMPTS))
    assert level.offsets.tolist() == [len(HEADER)] * len(PROMPTS)
    for place, prompt in enumerate(PROMPTS):
        close(hidden[:, place, : len(prompt)], own_states(model, [*HEADER, *prompt])[len(HEADER) :])


@pytest.mark.parametrize("header", [HEADER, ()], ids=["header", "no header"])
def test_responses_one_token_at_a_time_and_all_at_once(model: PreTrainedModel, header: tuple[int, ...]) -> None:
    forward = GroupedForward([model], [0] * GROUPS)
    above = [forward.read([header], [], [0])[1]] if header else []
    above.append(forward.read(PROMPTS, above, [0] * len(PROMPTS))[1])
    expected = alone(model, header)
    close(forward.read([tuple(row) for row in RESPONSES.tolist()], above, OWNERS, keep=False)[0], expected)
    responses = forward.below(above, OWNERS, LENGTH)
    for step in range(LENGTH):
        close(forward.run(RESPONSES[:, step : step + 1], above, responses)[:, :, 0], expected[:, step])
        responses.lengths += 1


def test_tokens_behind_a_response_that_was_read_at_once() -> None:
    model = tiny_family("Llama")
    forward = GroupedForward([model], [0])
    _, level = forward.read([(5, 6), (7, 8, 9)], [], [0, 0])
    level.capacity, level.keys = 4, [torch.nn.functional.pad(t, (0, 0, 0, 1)) for t in level.keys]
    level.values = [torch.nn.functional.pad(t, (0, 0, 0, 1)) for t in level.values]
    found = forward.run(torch.tensor([[10], [11]]), [], level)
    close(found[0, 0, 0], own_states(model, [5, 6, 10])[-1])
    close(found[0, 1, 0], own_states(model, [7, 8, 9, 11])[-1])


def test_the_model_attends_in_its_own_way_again_afterwards() -> None:
    model = tiny_family("Llama")
    before = own_states(model, HEADER)
    check_model(model)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(own_states(model, HEADER), before)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Bloom", {"n_layer": 2, "n_head": 4}),
        ("Falcon", {"head_dim": None}),
        ("Mamba", {}),
        ("GptOss", {"num_local_experts": 2, "num_experts_per_tok": 1}),
    ],
)
def test_a_family_with_attention_of_its_own_is_refused(family: str, settings: dict[str, int | None]) -> None:
    with pytest.raises(UserError, match="base_model"):
        check_model(tiny_family(family, **settings))
