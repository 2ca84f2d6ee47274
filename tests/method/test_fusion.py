from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sipo_pl.method.fusion import fuse_alpha, fuse_forward_kl, fuse_jsd, fuse_reverse_kl, next_tokens

V = 7


def log_probabilities(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(dim=-1)


# fusion

RULES = {
    "reverse KL": lambda scores, weights, reference: fuse_reverse_kl(scores, weights),
    "forward KL": lambda scores, weights, reference: fuse_forward_kl(scores, weights),
    "alpha 0.5": lambda scores, weights, reference: fuse_alpha(scores, weights, 0.5),
    "alpha 0.1": lambda scores, weights, reference: fuse_alpha(scores, weights, 0.1),
    "JSD": fuse_jsd,
}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def naive(name: str, scores: Tensor, weights: Tensor, reference: Tensor) -> Tensor:
    """Return the fused scores by the formulas as they are written down, in float64."""
    s, w, s0 = scores.double(), weights.double().T[..., None], reference.double()
    w = w / w.sum(0)  # in float64 too
    if name == "reverse KL":
        return (w * s).sum(0)
    if name == "JSD":
        u = (s - s0).exp()
        v = (w * (2 * u / (1 + u)).log()).sum(0)
        return s0 + v - (2 - v.exp()).log()
    alpha = float(name.removeprefix("alpha ")) if name.startswith("alpha") else 1.0
    return -(w * (-alpha * s).exp()).sum(0).log() / alpha


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_its_formula(name: str) -> None:
    scores = log_probabilities(3, 4, V) + torch.tensor([[0.0], [3.0], [-8.0]])[..., None]
    reference, weights = log_probabilities(4, V, seed=1), torch.tensor([[0.2, 0.5, 0.3]]).repeat(4, 1)
    expected = naive(name, scores, weights, reference)
    torch.testing.assert_close(RULES[name](scores, weights, reference).double(), expected, rtol=1e-5, atol=1e-5)


def test_rules_by_hand() -> None:
    half = torch.tensor([[0.5, 0.5]])

    def fused(rule: Callable[..., Tensor], first: float, second: float, reference: float = 0.25) -> float:
        scores = torch.tensor([first, second]).log()[:, None, None]
        return float(rule(scores, half, torch.tensor([[reference]]).log()).exp())

    assert fused(RULES["reverse KL"], 1 / 4, 1 / 9) == pytest.approx(1 / 6)  # geometric mean
    assert fused(RULES["forward KL"], 1 / 2, 1 / 4) == pytest.approx(1 / 3)  # harmonic mean of 2 and 4
    assert fused(RULES["alpha 0.5"], 1 / 4, 1 / 16) == pytest.approx(1 / 9)  # 2 and 4 have the mean 3
    # u is 1 and 3, e^v the root of 1 * 1.5
    assert fused(RULES["JSD"], 1 / 4, 3 / 4) == pytest.approx(1 / 4 * 1.5**0.5 / (2 - 1.5**0.5))


@each_rule
def test_a_corner_is_that_policy(rule: Callable[..., Tensor]) -> None:
    scores = log_probabilities(3, 3, V) - torch.tensor([500.0, 1.0, 2000.0])[:, None, None]
    scores[0, 1:, 2] = float("-inf")  # of a policy without weight there
    fused = rule(scores, torch.eye(3), log_probabilities(3, V, seed=1))
    torch.testing.assert_close(fused, torch.stack([scores[k, k] for k in range(3)]), rtol=0, atol=0)


@each_rule
def test_a_policy_without_weight_has_no_say(rule: Callable[..., Tensor]) -> None:
    scores, reference = log_probabilities(3, 2, V), log_probabilities(2, V, seed=1)
    expected = rule(scores[:2], torch.tensor([[0.3, 0.7]] * 2), reference)
    scores[2, :, 4] = float("-inf")
    found = rule(scores, torch.tensor([[0.3, 0.7, 0.0]] * 2), reference)
    torch.testing.assert_close(found, expected)


@each_rule
def test_a_policy_fused_with_itself_is_the_policy(rule: Callable[..., Tensor]) -> None:
    scores = log_probabilities(1, 2, V) - 300
    fused = rule(scores.repeat(2, 1, 1), torch.tensor([[0.2, 0.8], [0.7, 0.3]]), log_probabilities(2, V, seed=1) - 290)
    torch.testing.assert_close(fused, scores[0], rtol=0, atol=2e-4)


@each_rule
def test_a_constant_for_all_scores_is_one_of_the_fused(rule: Callable[..., Tensor]) -> None:
    scores, reference = log_probabilities(2, 2, V), log_probabilities(2, V, seed=1)
    weights = torch.tensor([[0.2, 0.8], [0.7, 0.3]])
    shifted = rule(scores - 40, weights, reference - 40)
    torch.testing.assert_close(shifted, rule(scores, weights, reference) - 40, rtol=0, atol=2e-5)


@each_rule
@pytest.mark.parametrize("gap", [-2000.0, -120.0, -15.1, -14.9, 14.9, 15.1, 120.0, 2000.0])
def test_long_responses_stay_finite_and_ranked(rule: Callable[..., Tensor], gap: float) -> None:
    """The policies find the text e^gap times as likely as the reference does."""
    scores = log_probabilities(1, 1, V).repeat(2, 1, 1) - 4000 + gap
    fused = rule(scores, torch.tensor([[0.4, 0.6]]), torch.full((1, V), -4000.0))
    assert fused.isfinite().all()
    torch.testing.assert_close(fused, scores[0], rtol=0, atol=4e-3)  # a float32 of 4000 has steps of 0.0005
    assert fused.argmax() == scores[0].argmax()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("gap", [-30.0, -16.0, 16.0, 25.0])
def test_a_rule_is_its_formula_where_policy_and_reference_are_far_apart(name: str, gap: float) -> None:
    scores = log_probabilities(2, 2, V) + gap
    reference, weights = log_probabilities(2, V, seed=1), torch.tensor([[0.3, 0.7], [0.9, 0.1]])
    expected = naive(name, scores, weights, reference)
    torch.testing.assert_close(RULES[name](scores, weights, reference).double(), expected, rtol=1e-5, atol=3e-5)


@each_rule
def test_a_token_that_is_impossible_for_all_stays_so(rule: Callable[..., Tensor]) -> None:
    scores, reference = log_probabilities(2, 1, V), log_probabilities(1, V, seed=1)
    scores[:, :, 3] = reference[:, 3] = float("-inf")
    fused = rule(scores, torch.tensor([[0.4, 0.6]]), reference)
    assert fused[0, 3] == float("-inf")
    assert fused.isfinite().sum() == V - 1


def test_the_fused_score_is_the_weighted_sum_of_its_own_row() -> None:
    logps = log_probabilities(2, 2, V)
    fused = fuse_reverse_kl(logps, torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    torch.testing.assert_close(fused[0], 0.2 * logps[0, 0] + 0.8 * logps[1, 0])
    torch.testing.assert_close(fused[1], 0.6 * logps[0, 1] + 0.4 * logps[1, 1])


def test_an_impossible_token_of_an_unused_policy_does_no_harm() -> None:
    logps = log_probabilities(2, 2, V)
    logps[1, :, 3] = float("-inf")
    fused = fuse_reverse_kl(logps, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    torch.testing.assert_close(fused[0], logps[0, 0])
    assert fused[1, 3] == float("-inf")
    assert not fused.isnan().any()
    assert next_tokens(fused, torch.tensor([0.5, 0.999]), 1.0, 1.0)[1] != 3


# decoding


def reference(scores: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return the distribution that a plain nucleus sampler would hand to `torch.multinomial`."""
    probabilities = (scores.double() / temperature).softmax(dim=-1)
    kept = torch.zeros_like(probabilities)
    for row, distribution in enumerate(probabilities):
        mass = 0.0
        for token in distribution.argsort(descending=True, stable=True):
            kept[row, token] = distribution[token]
            mass += float(distribution[token])
            if mass >= top_p - 1e-9:
                break
    return kept / kept.sum(dim=-1, keepdim=True)


def drawn(scores: Tensor, temperature: float, top_p: float, count: int = 20000) -> Tensor:
    """Return the distribution of tokens over an even grid of uniforms."""
    uniforms = (torch.arange(count) + 0.5) / count
    tokens = next_tokens(scores.repeat(count, 1), uniforms, temperature, top_p)
    return torch.bincount(tokens, minlength=scores.shape[-1]).double() / count


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 0.01])
def test_inverting_uniforms_draws_the_nucleus_distribution(temperature: float, top_p: float) -> None:
    scores = log_probabilities(1, 40, seed=1) - 12.0  # known up to a constant only
    torch.testing.assert_close(
        drawn(scores, temperature, top_p), reference(scores, temperature, top_p)[0], rtol=0, atol=2e-4
    )


@pytest.mark.parametrize(
    ("probabilities", "top_p", "inside"),
    [
        ([0.5, 0.25, 0.25], 0.5, {0}),
        ([0.5, 0.25, 0.25], 0.51, {0, 1}),
        ([0.25, 0.5, 0.25], 0.75, {0, 1}),  # of equals the earlier token
        ([0.25, 0.5, 0.25], 0.76, {0, 1, 2}),
        ([0.2] * 5, 0.6, {0, 1, 2}),
        ([0.1] * 10, 0.5, {0, 1, 2, 3, 4}),
    ],
)
def test_the_nucleus_is_no_larger_than_it_must_be(probabilities: list[float], top_p: float, inside: set[int]) -> None:
    found = drawn(torch.tensor([probabilities]).log(), 1.0, top_p, count=1000)
    assert set(found.nonzero().flatten().tolist()) == inside


def test_temperature_zero_is_greedy_whatever_the_noise() -> None:
    scores = log_probabilities(50, V)
    for uniforms in (torch.zeros(50), torch.full((50,), 0.999)):
        assert next_tokens(scores, uniforms, 0.0, 0.3).tolist() == scores.argmax(dim=-1).tolist()


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_the_ends_of_the_unit_interval_draw_possible_tokens(top_p: float) -> None:
    scores = log_probabilities(4, 1000, seed=2).mul(3)
    scores[:, 500:] = float("-inf")
    largest = torch.tensor(1.0).nextafter(torch.tensor(0.0))
    possible = reference(scores, 1.0, top_p)
    for uniform in (torch.zeros(4), largest.repeat(4)):
        tokens = next_tokens(scores, uniform, 1.0, top_p)
        assert (possible.gather(1, tokens[:, None]) > 0).all()
    assert next_tokens(scores, torch.zeros(4), 1.0, top_p).tolist() == scores.argmax(dim=-1).tolist()


def test_a_row_does_not_depend_on_its_company() -> None:
    scores, uniforms = log_probabilities(16, V), torch.rand(16, generator=torch.Generator().manual_seed(3))
    together = next_tokens(scores, uniforms, 0.7, 0.9)
    alone = [next_tokens(scores[i : i + 1], uniforms[i : i + 1], 0.7, 0.9).item() for i in range(16)]
    assert together.tolist() == alone
