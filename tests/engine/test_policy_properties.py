"""Properties of policies over random models of several families, random adapters (B not zero), rows and weights.

The oracle is plain transformers and plain peft, one policy and one row at a time, without cache, padding or chunks.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.logprobs import response_logprobs as logprobs
from sipo_pl.engine.logprobs.response_logprobs import response_logps
from sipo_pl.engine.logprobs.shared_prompts import shared_prompt_logps
from sipo_pl.engine.lora.adapters import Factors, concatenate, interpolate, read_adapter
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.policies import BASE, GroupPlace, PolicySet
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.interop.pretrained import attention_of
from sipo_pl.method.divergences import Alpha, Divergence, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.rewards.implicit import policy_logps
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import collate

VOCABULARY, EOS = 61, 2
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen3": {},
    "Mistral": {"sliding_window": 5},
    "Gemma": {},
    "Gemma2": {"final_logit_softcapping": 5.0, "sliding_window": 5},
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
RULES = [ReverseKL(), ForwardKL(), JensenShannon(), Alpha(0.5)]
few = settings(max_examples=12, deadline=None)


class Problem(NamedTuple):
    """A base model and policies over it, by plain peft and as factors of the project's own."""

    base: PreTrainedModel
    policies: list[nn.Module]
    factors: list[Factors]

    def stack(self, factors: Factors) -> LoRAStack:
        """Return a model with one adapter."""
        stack = LoRAStack(copy.deepcopy(self.base), TARGETS)
        stack.stack([factors])
        return stack

    def policy_set(self, *factors: Factors) -> PolicySet:
        """Return all policies, or given ones, and the base as their reference."""
        chosen = factors or self.factors
        stack = LoRAStack(copy.deepcopy(self.base), TARGETS)
        stack.stack([*chosen, BASE])
        return PolicySet([stack], [GroupPlace(0, k, len(chosen)) for k in range(len(chosen) + 1)])


@st.composite
def problems(draw: Callable[..., Any], alike: bool = False) -> Problem:
    """Draw a model and two or three adapters; `alike` gives them one rank, scale and set of modules."""
    family = draw(st.sampled_from(list(FAMILIES)))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=draw(st.integers(1, 2)),
        num_attention_heads=4,
        num_key_value_heads=draw(st.sampled_from([1, 2, 4])),
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        **FAMILIES[family],
    )
    base = AutoModelForCausalLM.from_config(config, **attention_of(config)).eval().requires_grad_(False)
    common = draw(lora_settings())
    chosen = [common if alike else draw(lora_settings()) for _ in range(draw(st.integers(2, 3)))]
    policies = [random_policy(base, one, seed) for seed, one in enumerate(chosen)]
    return Problem(base, policies, [factors_of(policy) for policy in policies])


@st.composite
def lora_settings(draw: Callable[..., Any]) -> dict[str, Any]:
    targets = draw(st.lists(st.sampled_from(TARGETS), min_size=1, unique=True))
    return {
        "r": draw(st.integers(1, 5)),
        "lora_alpha": draw(st.integers(1, 8)),
        "use_rslora": draw(st.booleans()),
        "target_modules": targets,
        "rank_pattern": {targets[0]: draw(st.integers(1, 6))},
    }


def random_policy(base: PreTrainedModel, chosen: dict[str, Any], seed: int) -> nn.Module:
    model = get_peft_model(copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", **chosen)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3, generator=generator)
    return model.requires_grad_(False)


def factors_of(policy: nn.Module) -> Factors:
    with tempfile.TemporaryDirectory() as folder:
        policy.save_pretrained(folder)  # type: ignore[operator]
        return read_adapter(Path(folder)).factors


tokens = st.integers(3, VOCABULARY - 1)


@st.composite
def some_rows(draw: Callable[..., Any]) -> list[Encoded]:
    """Draw rows of which some share a prompt, one may repeat, and each ends in EOS, perhaps at once."""
    prompts = draw(st.lists(st.lists(tokens, min_size=1, max_size=8), min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        prompt, response = draw(st.sampled_from(prompts)), draw(st.lists(tokens, max_size=7))
        rows.append(Encoded([*prompt, *response, EOS], len(prompt)))
    return rows


@torch.no_grad()
def logps_alone(model: nn.Module, row: Encoded) -> float:
    """Return the row's log-probability from the model's own logits by a full log-softmax in float64."""
    logits = model(input_ids=torch.tensor([row.input_ids])).logits[0]
    logps = logits.double().log_softmax(dim=-1)
    targets = torch.tensor(row.input_ids[row.prompt_length :])
    return float(logps[row.prompt_length - 1 : -1].gather(1, targets[:, None]).sum())


def expected(problem: Problem, rows: list[Encoded]) -> Tensor:
    models = [*problem.policies, problem.base]
    return torch.tensor([[logps_alone(model, row) for row in rows] for model in models])


@few
@given(problem=problems(), rows=some_rows(), budget=st.integers(1, 2000), order=st.randoms(use_true_random=False))
def test_scores_are_those_of_each_policy_and_row_alone(
    problem: Problem, rows: list[Encoded], budget: int, order: Any
) -> None:
    """Neither stacking, shared prompts, padding, company, order nor the token budget of a batch matters."""
    order.shuffle(rows)
    found, reference = policy_logps(problem.policy_set(), len(problem.factors), rows, budget)
    alone = expected(problem, rows)
    torch.testing.assert_close(found, alone[:-1], **CLOSE)
    torch.testing.assert_close(reference, alone[-1:].expand_as(reference), **CLOSE)


@few
@given(problem=problems(), rows=some_rows(), chunk=st.integers(1, 20))
def test_training_scores_like_scoring(problem: Problem, rows: list[Encoded], chunk: int) -> None:
    """The forward of a fit, padded on the right and in chunks, is the full log-softmax, and that of the scorer."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(logprobs, "CHUNK", {False: chunk})
        one = problem.stack(problem.factors[0])
        found = response_logps(one.model, collate(rows))
        torch.testing.assert_close(found, expected(problem, rows)[0], **CLOSE)
        torch.testing.assert_close(found, shared_prompt_logps(GroupedForward([one.model], [0]), rows)[0], **CLOSE)


@few
@given(problem=problems(), rows=some_rows())
def test_a_second_round_on_top_is_the_merged_one(problem: Problem, rows: list[Encoded]) -> None:
    first, second = problem.factors[:2]
    merged = copy.deepcopy(problem.base)
    for name, (a, b) in first.items():
        merged.get_submodule(name).weight += b @ a
    on_merged = LoRAStack(merged, TARGETS)
    on_merged.stack([second])
    with torch.no_grad():
        stacked = response_logps(problem.stack(concatenate(first, second)).model, collate(rows))
        torch.testing.assert_close(stacked, response_logps(on_merged.model, collate(rows)), **CLOSE)


@few
@given(problem=problems(alike=True), corner=st.integers(0, 2))
def test_an_interpolation_at_a_corner_is_that_adapter(problem: Problem, corner: int) -> None:
    corner %= len(problem.factors)
    point = [float(k == corner) for k in range(len(problem.factors))]
    found = interpolate(problem.factors, point)
    for name, factors in problem.factors[corner].items():
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[name], factors, strict=True))


# decoding

points = st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any)
prompts = st.lists(st.lists(tokens, min_size=1, max_size=9).map(tuple), min_size=1, max_size=4)


def weights_of(counts: list[int], policies: int) -> tuple[float, ...]:
    counts = counts[:policies] if any(counts[:policies]) else [1] * policies
    return tuple(count / sum(counts) for count in counts)


@torch.no_grad()
def fused_alone(problem: Problem, request: Request, steps: int) -> list[int]:
    """Decode one row from the weighted log-probabilities of each policy's own forward, up to a near tie."""
    ids, made = list(request.prompt_ids), []
    used = [(w, model) for w, model in zip(request.weights, problem.policies, strict=True) if w > 0]
    for _ in range(steps):
        scores = sum(w * model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1) for w, model in used)
        best = scores.topk(2)
        if best.values[0] - best.values[1] < 1e-3:
            break
        token = int(best.indices[0])
        if token == EOS:
            break
        ids.append(token)
        made.append(token)
    return made


@few
@given(problem=problems(), texts=prompts, counts=st.lists(points, min_size=1, max_size=3), rows=st.integers(1, 5))
def test_fused_texts_are_those_of_each_row_alone(
    problem: Problem, texts: list[tuple[int, ...]], counts: list[list[int]], rows: int
) -> None:
    """Neither cache, padding on the left, company nor the size of a batch matters; corners are among the weights."""
    weights = [weights_of(one, len(problem.policies)) for one in counts]
    requests = [Request(f"{i}/{w}", text, point) for i, text in enumerate(texts) for w, point in enumerate(weights)]
    decoding = Decoding(max_new_tokens=6, batch_rows=rows)
    for request, found in zip(
        requests, generate(problem.policy_set(), requests, decoding, ReverseKL(), EOS, 0), strict=True
    ):
        alone = fused_alone(problem, request, 6)
        assert found.token_ids[: len(alone)] == alone


@few
@given(problem=problems(), texts=prompts, counts=points, rule=st.sampled_from(RULES))
def test_a_policy_fused_with_itself_is_the_policy(
    problem: Problem, texts: list[tuple[int, ...]], counts: list[int], rule: Divergence
) -> None:
    twice = problem.policy_set(problem.factors[0], problem.factors[0])
    requests = [Request(str(index), text, weights_of(counts[:2], 2)) for index, text in enumerate(texts)]
    found = generate(twice, requests, Decoding(max_new_tokens=6), rule, EOS, 0)
    for text, generated in zip(texts, found, strict=True):
        one = Problem(problem.base, problem.policies[:1], problem.factors[:1])
        alone = fused_alone(one, Request("", text, (1.0,)), 6)
        assert generated.token_ids[: len(alone)] == alone
