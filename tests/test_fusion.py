import pytest
import torch
from torch import Tensor

from sipo_pl.fusion import fuse_reverse_kl, next_tokens

V = 7


def log_probabilities(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(dim=-1)


# fusion


def test_a_corner_is_that_policy() -> None:
    logps = log_probabilities(3, 3, V)
    fused = fuse_reverse_kl(logps, torch.eye(3))
    torch.testing.assert_close(fused, torch.stack([logps[k, k] for k in range(3)]), rtol=0, atol=0)


def test_a_policy_fused_with_itself_is_the_policy() -> None:
    logps = log_probabilities(1, 2, V)
    fused = fuse_reverse_kl(logps.repeat(2, 1, 1), torch.tensor([[0.2, 0.8], [0.7, 0.3]]))
    torch.testing.assert_close(fused, logps[0])


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
