"""The engine on a GPU gives what it gives on a CPU: the kernel, the graphs, slots that rows leave and take."""

import pytest
import torch
from tiny import make_tiny_adapter, make_tiny_model

from sipo_pl.data.templates import Encoded
from sipo_pl.divergences import Divergence, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.policies.adapters import read_adapter
from sipo_pl.policies.decoding import Decoding, Generated, Request
from sipo_pl.policies.generation import generate
from sipo_pl.policies.policies import Policy, PolicySet, stack_policies
from sipo_pl.policies.streaming import stream
from sipo_pl.rewards.implicit import implicit_rewards

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

EOS = 2
GENERATOR = torch.Generator().manual_seed(0)
HEADER = tuple(torch.randint(4, 250, (40,), generator=GENERATOR).tolist())
PROMPTS = [tuple(torch.randint(4, 250, (n,), generator=GENERATOR).tolist()) for n in (5, 70, 3, 130, 8, 21)]
WEIGHTS = ((0.7, 0.3), (0.2, 0.8), (0.5, 0.5), (0.0, 1.0))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PolicySet]:
    folder = tmp_path_factory.mktemp("gpu")
    base = make_tiny_model(folder / "base", spread=0.3)
    policies = [
        Policy(str(base), read_adapter(make_tiny_adapter(folder / name, base, seed)).factors)
        for seed, name in enumerate("ab")
    ]
    made = {device: stack_policies(policies, "float32") for device in ("cpu", "cuda")}
    for stack in made["cuda"].stacks:
        stack.model.to("cuda")
    return made


def decode(
    policies: PolicySet, prompts: list[tuple[int, ...]], divergence: Divergence, **settings: float
) -> list[Generated]:
    rows = [Request(f"{i}/{w}", prompt, w) for i, prompt in enumerate(prompts) for w in WEIGHTS]
    decoding = Decoding(max_new_tokens=40, **settings)  # type: ignore[arg-type]
    return generate(policies, rows, decoding, divergence, EOS, 0)


@pytest.mark.parametrize("divergence", [ReverseKL(), ForwardKL(), JensenShannon()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(
    "settings", [{}, {"batch_rows": 7}, {"temperature": 1.0, "top_p": 0.9, "batch_rows": 10}, {"beams": 3}], ids=str
)
@pytest.mark.parametrize("header", [(), HEADER], ids=["alone", "header"])
def test_texts_are_those_of_a_cpu(
    sets: dict[str, PolicySet], divergence: Divergence, settings: dict[str, float], header: tuple[int, ...]
) -> None:
    prompts = [(*header, *prompt) for prompt in PROMPTS]
    expected = decode(sets["cpu"], prompts, divergence, **settings)
    assert decode(sets["cuda"], prompts, divergence, **settings) == expected


def test_requests_that_come_and_go_get_the_texts_of_a_cpu(sets: dict[str, PolicySet]) -> None:
    rows = [Request(f"{i}/{w}", prompt, w) for i, prompt in enumerate(PROMPTS) for w in WEIGHTS]
    settings = [Decoding(max_new_tokens=6 + 13 * (i % 8)) for i in range(len(rows))]  # some outgrow the first capacity
    pairs = list(zip(rows, settings, strict=True))
    expected = [generate(sets["cpu"], [row], one, ReverseKL(), EOS, 0)[0] for row, one in pairs]
    made: dict[str, list[int]] = {row.key: [] for row in rows}
    coming = list(pairs)
    with stream(sets["cuda"], 2, ReverseKL(), EOS, slots=9, seed=0) as running:
        while coming or running.busy:
            if coming:
                running.add(*coming.pop(0))
            for event in running.step():
                made[event.key] += [] if event.token_id is None else [event.token_id]
    assert list(made.values()) == [one.token_ids for one in expected]


def test_rewards_are_those_of_a_cpu(sets: dict[str, PolicySet]) -> None:
    rows = [Encoded([*prompt, *PROMPTS[i - 1]], len(prompt)) for i, prompt in enumerate(PROMPTS)]
    found, expected = (implicit_rewards(sets[d], 2, rows, ReverseKL(), 0.1, 1024) for d in ("cuda", "cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_as_many_rows_as_there_is_room_for(sets: dict[str, PolicySet]) -> None:
    assert decode(sets["cuda"], PROMPTS, ReverseKL(), batch_rows=None) == decode(sets["cpu"], PROMPTS, ReverseKL())  # type: ignore[arg-type]
