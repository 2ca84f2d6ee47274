import contextlib
import itertools
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.policies import BASE
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.messages.errors import UserError

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]
ATTENTION = TARGETS[:4]
IDS = torch.randint(4, 200, (3, 11), generator=torch.Generator().manual_seed(0))


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).requires_grad_(False).eval()


@torch.no_grad()
def logits(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    return model(input_ids=ids).logits


@pytest.fixture(scope="module")
def alone(lively_model: Path, adapter_folders: list[Path]) -> list[Tensor]:
    """Logits of each adapter through plain peft, and of the base."""
    policies = [PeftModel.from_pretrained(load(lively_model), folder) for folder in adapter_folders]
    return [logits(model) for model in [*policies, load(lively_model)]]


@pytest.fixture(scope="module")
def stacked(lively_model: Path, adapter_folders: list[Path]) -> LoRAStack:
    stack = LoRAStack(load(lively_model), TARGETS)
    stack.stack([*(read_adapter(folder).factors for folder in adapter_folders), BASE])
    return stack


def test_the_adapters_of_these_tests_differ(alone: list[Tensor]) -> None:
    for one, other in itertools.combinations(alone, 2):
        assert (one - other).abs().mean() > 0.1


def test_a_stacked_batch_equals_each_adapter_alone(stacked: LoRAStack, alone: list[Tensor]) -> None:
    groups = logits(stacked.model, IDS.repeat(4, 1)).chunk(4)
    for group, expected in zip(groups, alone, strict=True):
        torch.testing.assert_close(group, expected, rtol=1e-5, atol=1e-5)


def test_each_group_has_its_own_rows(stacked: LoRAStack, alone: list[Tensor]) -> None:
    order = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])
    found = logits(stacked.model, IDS[order.flatten()]).view(4, 2, *alone[0].shape[1:])
    for k in range(4):
        torch.testing.assert_close(found[k], alone[k][order[k]], rtol=1e-5, atol=1e-5)


def test_active_adapters_are_chosen_in_order_and_restored(stacked: LoRAStack, alone: list[Tensor]) -> None:
    with stacked.active([2, 0]):
        third, first = logits(stacked.model, IDS.repeat(2, 1)).chunk(2)
    torch.testing.assert_close(third, alone[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first, alone[0], rtol=1e-5, atol=1e-5)
    with contextlib.suppress(KeyError), stacked.active([3]):
        torch.testing.assert_close(logits(stacked.model), alone[3], rtol=1e-5, atol=1e-5)
        raise KeyError
    assert len(logits(stacked.model, IDS.repeat(4, 1))) == 12


def test_a_batch_that_is_no_whole_number_of_groups_is_refused(stacked: LoRAStack) -> None:
    with pytest.raises(RuntimeError):
        logits(stacked.model, IDS)


def test_adapters_are_no_part_of_the_models_state(stacked: LoRAStack) -> None:
    assert not [name for name in stacked.model.state_dict() if "frozen" in name]
    assert not [name for name, parameter in stacked.model.named_parameters() if parameter.requires_grad]


def test_a_bfloat16_base_has_bfloat16_adapters_but_for_ranks_in_training(
    lively_model: Path, adapter_folders: list[Path]
) -> None:
    stack = LoRAStack(load(lively_model, torch.bfloat16), TARGETS)
    stack.stack([read_adapter(adapter_folders[0]).factors])
    stack.train_ranks(2, 1.0, seed=0)
    assert {layer.frozen_A.dtype for layer in stack.layers.values()} == {torch.bfloat16}
    assert {layer.lora_B.dtype for layer in stack.layers.values()} == {torch.float32}
    theirs = PeftModel.from_pretrained(load(lively_model, torch.bfloat16), adapter_folders[0])
    found, expected = logits(stack.model), logits(theirs)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.3)


# ranks in training


def in_training(folder: Path, rank: int = 4, alpha: float = 2.0, seed: int = 0) -> LoRAStack:
    stack = LoRAStack(load(folder), ATTENTION)
    stack.train_ranks(rank, alpha, seed)
    return stack


def test_new_ranks_start_as_the_method_says(lively_model: Path, alone: list[Tensor]) -> None:
    stack = in_training(lively_model, rank=32)
    torch.testing.assert_close(logits(stack.model), alone[3], rtol=0, atol=0)
    for layer in stack.layers.values():
        assert not layer.lora_B.any()
        expected = nn.init.kaiming_uniform_(torch.empty(32, layer.base.in_features), a=5**0.5)
        assert layer.lora_A.abs().max() <= layer.base.in_features**-0.5
        assert layer.lora_A.std().item() == pytest.approx(expected.std().item(), rel=0.05)


def test_new_ranks_follow_the_seed_and_differ_by_layer(lively_model: Path) -> None:
    first, again, other = (in_training(lively_model, seed=seed) for seed in (0, 0, 1))
    name, another = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
    assert torch.equal(first.layers[name].lora_A, again.layers[name].lora_A)
    assert not torch.equal(first.layers[name].lora_A, other.layers[name].lora_A)
    assert not torch.equal(first.layers[name].lora_A, first.layers[another].lora_A)


def test_training_has_the_gradients_of_peft(lively_model: Path) -> None:
    stack = in_training(lively_model)
    config = LoraConfig(r=4, lora_alpha=2, target_modules=ATTENTION, task_type="CAUSAL_LM")
    theirs = get_peft_model(load(lively_model), config)
    peers = dict(theirs.get_base_model().named_modules())
    for name, layer in stack.layers.items():
        layer.lora_B.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
        peers[name].lora_A["default"].weight.data.copy_(layer.lora_A.data[0])
        peers[name].lora_B["default"].weight.data.copy_(layer.lora_B.data[0])
    for model in (stack.model, theirs):
        model(input_ids=IDS, labels=IDS).loss.backward()
    trained = [name for name, parameter in stack.model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * len(stack.layers)
    for name, layer in stack.layers.items():
        for ours, peer in ((layer.lora_A, peers[name].lora_A), (layer.lora_B, peers[name].lora_B)):
            assert ours.grad.any()
            torch.testing.assert_close(ours.grad[0], peer["default"].weight.grad, rtol=1e-4, atol=1e-6)


def test_the_reference_is_the_frozen_part_alone(
    lively_model: Path, adapter_folders: list[Path], alone: list[Tensor]
) -> None:
    stack = LoRAStack(load(lively_model), TARGETS)
    stack.stack([read_adapter(adapter_folders[1]).factors])
    stack.train_ranks(2, 2.0, seed=0)
    for layer in stack.layers.values():
        layer.lora_B.data.fill_(0.1)
    trained = logits(stack.model)
    assert (trained - alone[1]).abs().mean() > 0.1
    with contextlib.suppress(KeyError), stack.reference():
        torch.testing.assert_close(logits(stack.model), alone[1], rtol=1e-5, atol=1e-5)
        raise KeyError
    torch.testing.assert_close(logits(stack.model), trained, rtol=0, atol=0)


# targets


def test_a_target_may_be_a_full_name_and_is_wrapped_once(tiny_model: Path) -> None:
    name = "model.layers.1.mlp.up_proj"
    assert list(LoRAStack(load(tiny_model), [name]).layers) == [name]
    stack = LoRAStack(load(tiny_model), ["up_proj", name])
    assert sorted(stack.layers) == ["model.layers.0.mlp.up_proj", name]
    assert isinstance(stack.layers[name].base, nn.Linear)


@pytest.mark.parametrize(
    ("target", "message"), [("q_porj", "did you mean 'q_proj'"), ("embed_tokens", "no such linear")]
)
def test_a_target_that_the_model_does_not_have_suggests_the_nearest(
    tiny_model: Path, target: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"target module '{target}': .*{message}"):
        LoRAStack(load(tiny_model), [target])
