"""The engine on a GPU gives what it gives on a CPU: the kernel, the graphs, slots that rows leave and take."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import make_tiny_adapter, make_tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import ModelOutput

from sipo_pl.engine.decoding.attention import attend_along
from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.decoding.streaming import stream
from sipo_pl.engine.logprobs.chunked_backward import summed_over
from sipo_pl.engine.logprobs.cuda_graphs import AdapterLogps, _distinct_logps, _numbers_of
from sipo_pl.engine.logprobs.packed_attention import NAME
from sipo_pl.engine.logprobs.packed_sequences import pack
from sipo_pl.engine.logprobs.padding import padded, size_of
from sipo_pl.engine.logprobs.response_logprobs import row_sums
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.policies import Policy, PolicySet, stack_policies
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.compilation import compile_layers
from sipo_pl.method.divergences import Divergence, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.rewards.implicit import implicit_rewards, policy_logps
from sipo_pl.text.templates import Encoded

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


def assert_same_texts(
    rows: Sequence[Request], found: Sequence[list[int]], expected: Sequence[list[int]], policies: PolicySet
) -> None:
    """Compare texts with those of a CPU, up to tokens whose fused scores tie there, of which rounding picks one."""
    for row, ours, one in zip(rows, found, expected, strict=True):
        pairs = zip([*ours, EOS], [*one, EOS], strict=False)
        place = next((place for place, pair in enumerate(pairs) if len(set(pair)) == 2), None)
        if place is None:
            assert ours == one
            continue
        start = [*row.prompt_ids, *ours[:place]]
        tied = [Encoded([*start, [*text, EOS][place]], len(start)) for text in (ours, one)]
        logps, _ = policy_logps(policies, 2, tied, 1024)
        fused = torch.tensor(row.weights) @ logps
        assert abs(fused[0] - fused[1]) < 1e-4


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
    assert_same_texts(rows, list(made.values()), [one.token_ids for one in expected], sets["cpu"])


def test_rewards_are_those_of_a_cpu(sets: dict[str, PolicySet]) -> None:
    rows = [Encoded([*prompt, *PROMPTS[i - 1]], len(prompt)) for i, prompt in enumerate(PROMPTS)]
    found, expected = (implicit_rewards(sets[d], 2, rows, ReverseKL(), 0.1, 1024) for d in ("cuda", "cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_as_many_rows_as_there_is_room_for(sets: dict[str, PolicySet]) -> None:
    assert decode(sets["cuda"], PROMPTS, ReverseKL(), batch_rows=None) == decode(sets["cpu"], PROMPTS, ReverseKL())  # type: ignore[arg-type]


Logps = Callable[[Sequence[Encoded]], Tensor]
CUDA = torch.device("cuda")
# of rising and falling sizes, with and without prompts in common, the first and the last of one size
BATCHES = [
    [Encoded([*PROMPTS[1], *PROMPTS[0], 2], 70), Encoded([*PROMPTS[1], *PROMPTS[5], 2], 70)],
    [Encoded([*prompt, *HEADER, 2], len(prompt)) for prompt in PROMPTS],
    [Encoded([*HEADER, *prompt, 2], 40) for prompt in PROMPTS],
    [Encoded([*PROMPTS[4], *PROMPTS[2]], 8)],
    [Encoded([*PROMPTS[1], *PROMPTS[4], 2], 70), Encoded([*PROMPTS[1], *PROMPTS[5], 2], 70)],
]


@pytest.fixture
def trained(tmp_path: Path) -> LoRAStack:
    """A stack with ranks in training over a model in bfloat16, on the GPU."""
    folder = make_tiny_model(tmp_path / "base", spread=0.1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(CUDA).requires_grad_(False).eval()
    stack = LoRAStack(model, ["q_proj", "k_proj", "v_proj", "o_proj"])
    stack.train_ranks(8, 16.0, seed=0)
    generator = torch.Generator(CUDA).manual_seed(0)
    for layer in stack.layers.values():
        assert layer.lora_B is not None
        layer.lora_B.data.normal_(std=0.1, generator=generator)
    return stack


def ways_of(stack: LoRAStack) -> list[Logps]:
    """Return log-probabilities by graphs, and without them."""
    return [partial(AdapterLogps(stack, graphs), device=CUDA) for graphs in (True, False)]


def assert_alike(found: Sequence[Tensor], expected: Sequence[Tensor], share: float) -> None:
    """Compare gradients to a share of the largest number of each."""
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        assert (ours - theirs).abs().max() <= share * theirs.abs().max()


@pytest.mark.parametrize("is_compiled", [False, True])
def test_graphs_give_the_values_and_gradients_of_single_launches(
    trained: LoRAStack, is_compiled: bool, logged: pytest.LogCaptureFixture
) -> None:
    if is_compiled:
        compile_layers(trained.model)
    graphed, plain = ways_of(trained)
    with logged.at_level(logging.WARNING, "sipo_pl"):
        for rows in [*BATCHES, *BATCHES]:
            slopes = torch.linspace(-1, 2, len(rows), device=CUDA)
            found, expected = graphed(rows), plain(rows)
            torch.testing.assert_close(found, expected, rtol=5e-3, atol=0.1)
            gradients = [torch.autograd.grad((one * slopes).sum(), trained.trained) for one in (found, expected)]
            assert_alike(*gradients, share=0.05)
    assert not logged.records
    assert len(graphed.func._pairs) >= 3


def test_graphs_give_what_padded_rows_give(trained: LoRAStack) -> None:
    graphed, _ = ways_of(trained)
    for rows in BATCHES:
        found, inputs = graphed(rows), padded(pack(rows))
        with attend_along(trained.model, NAME):
            numbers = [one.to(CUDA) for one in _numbers_of(inputs)]
            expected = _distinct_logps(trained.model, numbers, size_of(inputs))[inputs.places.to(CUDA)]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        gradients = [torch.autograd.grad(one.sum(), trained.trained) for one in (found, expected)]
        assert_alike(*gradients, share=2**-6)  # atomic additions come in any order, each rounded to 2**-8


def test_replays_follow_the_optimizer_and_gradients_add_up(trained: LoRAStack) -> None:
    start = [one.detach().clone() for one in trained.trained]
    losses, ends = [], []
    for logps in ways_of(trained):
        for one, value in zip(trained.trained, start, strict=True):
            one.data.copy_(value)  # where it lies
        optimizer = torch.optim.SGD(trained.trained, lr=0.1)
        taken = []
        for _ in range(4):
            optimizer.zero_grad()
            for part in (BATCHES[:3], BATCHES[3:]):  # two micro-batches, of several forwards each
                total = summed_over([lambda rows=rows, f=logps: -f(rows).mean() for rows in part], trained.trained)
                total.backward()
                taken.append(total.item())
            torch.nn.utils.clip_grad_norm_(trained.trained, 1.0)
            optimizer.step()
        losses.append(torch.tensor(taken))
        ends.append([one.detach() - value for one, value in zip(trained.trained, start, strict=True)])
    torch.testing.assert_close(*losses, rtol=5e-3, atol=0.1)
    assert losses[0][-1] < losses[0][1]
    assert_alike(*ends, share=0.1)


def test_states_of_a_replayed_forward_last_for_one_backward_pass(trained: LoRAStack) -> None:
    graphed, _ = ways_of(trained)
    late = graphed(BATCHES[0]).sum()
    graphed(BATCHES[1])
    with pytest.raises(RuntimeError, match="another forward came before its backward pass"):
        late.backward()
    twice = graphed(BATCHES[0]).sum()
    twice.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="it had one already"):
        twice.backward()


def test_a_forward_that_asks_the_cpu_is_launched_as_ever(trained: LoRAStack, logged: pytest.LogCaptureFixture) -> None:
    graphed, plain = ways_of(trained)
    expected = plain(BATCHES[0])

    def ask(module: torch.nn.Module, given: tuple[Tensor, ...], output: ModelOutput) -> None:
        output.last_hidden_state.sum().item()

    trained.model.get_decoder().register_forward_hook(ask)
    for _ in range(2):
        torch.testing.assert_close(graphed(BATCHES[0]), expected)
    torch.autograd.grad(graphed(BATCHES[1]).sum(), trained.trained)
    (record,) = logged.records
    assert record.getMessage().startswith("forwards are not replayed as CUDA graphs")


def test_sums_of_a_forward_are_the_same_each_time() -> None:
    generator = torch.Generator().manual_seed(3)
    logps = torch.randn(3, 20_000, generator=generator)
    owners = torch.randint(0, 50, (20_000,), generator=generator).sort().values
    sums = [row_sums(logps.cuda(), owners.cuda(), 50).cpu() for _ in range(20)]
    assert all(torch.equal(one, sums[0]) for one in sums)
    torch.testing.assert_close(sums[0], row_sums(logps, owners, 50))
