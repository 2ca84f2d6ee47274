import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import make_tiny_adapter, make_tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sipo_pl.engine.lora.adapters import (
    Factors,
    concatenate,
    interpolate,
    read_adapter,
    trained_factors,
    weighted_sum,
    write_adapter,
)
from sipo_pl.engine.lora.policies import Policy, interpolated_policies, load_policies, read_policies
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.released.soups import compounding_policies
from sipo_pl.storage.adapter_config import WEIGHTS_FILE

IDS = torch.randint(4, 200, (2, 9), generator=torch.Generator().manual_seed(0))
Q0 = "model.layers.0.self_attn.q_proj"


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def peft_logits(base: Path, *folders: Path) -> Tensor:
    """Logits of the base with all of `folders` active, through plain peft."""
    model = PeftModel.from_pretrained(load(base), folders[0], adapter_name="0")
    for index, folder in enumerate(folders[1:], start=1):
        model.load_adapter(folder, adapter_name=str(index))
    model.base_model.set_adapter([str(index) for index in range(len(folders))])
    return model.eval()(input_ids=IDS).logits


@torch.no_grad()
def our_logits(base: Path, factors: Factors) -> Tensor:
    stack = LoRAStack(load(base), sorted(factors))
    stack.stack([factors])
    return stack.model(input_ids=IDS).logits


def assert_near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


# plain PEFT folders in and out


def test_what_is_written_loads_in_plain_peft_with_the_same_logits(
    lively_model: Path, adapter_folders: list[Path], tmp_path: Path
) -> None:
    for folder in adapter_folders:
        factors = read_adapter(folder).factors
        write_adapter(tmp_path / folder.name, factors, base_model=str(lively_model))
        expected = peft_logits(lively_model, folder)
        assert_near(our_logits(lively_model, factors), expected)
        assert_near(peft_logits(lively_model, tmp_path / folder.name), expected)
        again = read_adapter(tmp_path / folder.name)
        assert again.base == str(lively_model)
        for name, (a, b) in factors.items():
            assert torch.equal(again.factors[name][0], a)
            torch.testing.assert_close(again.factors[name][1], b)


@pytest.mark.parametrize(
    "settings",
    [
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 9, "layers.1.self_attn.v_proj": 1}},
        {"alpha_pattern": {r".*layers\.0\..*[qk]_proj": 33}},
        {"alpha_pattern": {"proj": 50}},  # matches no whole name
        {"rank_pattern": {"k_proj": 8}, "use_rslora": True},
    ],
)
def test_patterns_of_rank_and_alpha_mean_what_they_mean_to_peft(
    lively_model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = make_tiny_adapter(tmp_path / "adapter", lively_model, 5, **settings)
    factors = read_adapter(folder).factors
    expected = peft_logits(lively_model, folder)
    assert_near(our_logits(lively_model, factors), expected)
    write_adapter(tmp_path / "written", factors, base_model=str(lively_model))
    assert_near(peft_logits(lively_model, tmp_path / "written"), expected)


def test_some_layers_of_a_target_alone_are_read_and_written(lively_model: Path, tmp_path: Path) -> None:
    folder = make_tiny_adapter(tmp_path / "adapter", lively_model, 6, layers_to_transform=[1])
    factors = read_adapter(folder).factors
    assert all(".layers.1." in name for name in factors)
    write_adapter(tmp_path / "written", factors, base_model=str(lively_model))
    assert_near(peft_logits(lively_model, tmp_path / "written"), peft_logits(lively_model, folder))


def test_ranks_in_training_are_written_with_their_scale(lively_model: Path, tmp_path: Path) -> None:
    stack = LoRAStack(load(lively_model), ["q_proj", "v_proj"])
    stack.train_ranks(4, 1.0, seed=0)
    for layer in stack.layers.values():
        layer.lora_B.data.normal_(generator=torch.Generator().manual_seed(1))
    write_adapter(tmp_path / "adapter", trained_factors(stack), base_model=str(lively_model))
    with torch.no_grad():
        assert_near(peft_logits(lively_model, tmp_path / "adapter"), stack.model(input_ids=IDS).logits)


def test_writing_replaces_an_adapter_whole(lively_model: Path, adapter_folders: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    for source in adapter_folders[:2]:
        write_adapter(folder, read_adapter(source).factors, base_model=str(lively_model))
    assert read_adapter(folder).rank == 8
    assert list(tmp_path.iterdir()) == [folder]


# arithmetic


def test_concatenated_ranks_are_both_adapters_at_once(
    lively_model: Path, adapter_folders: list[Path], tmp_path: Path
) -> None:
    first, second, other = (read_adapter(folder).factors for folder in adapter_folders)
    both = concatenate(first, second)
    assert both[Q0][0].shape[0] == 12
    expected = peft_logits(lively_model, *adapter_folders[:2])
    assert (expected - peft_logits(lively_model, adapter_folders[0])).abs().mean() > 0.1
    assert_near(our_logits(lively_model, both), expected)
    write_adapter(tmp_path / "both", both, base_model=str(lively_model))
    assert_near(peft_logits(lively_model, tmp_path / "both"), expected)
    uneven = concatenate(first, other)  # other modules, so that ranks differ by module
    write_adapter(tmp_path / "uneven", uneven, base_model=str(lively_model))
    expected = peft_logits(lively_model, adapter_folders[0], adapter_folders[2])
    assert_near(our_logits(lively_model, uneven), expected)
    assert_near(peft_logits(lively_model, tmp_path / "uneven"), expected)
    assert set(first) == set(read_adapter(adapter_folders[0]).factors)  # the parts stay as they were


def test_interpolation_takes_a_and_b_each(lively_model: Path, tmp_path: Path) -> None:
    one, other = (read_adapter(make_tiny_adapter(tmp_path / str(seed), lively_model, seed)).factors for seed in (7, 8))
    mixed = interpolate([one, other], [0.25, 0.75])
    for name in one:
        torch.testing.assert_close(mixed[name][0], 0.25 * one[name][0] + 0.75 * other[name][0])
        torch.testing.assert_close(mixed[name][1], 0.25 * one[name][1] + 0.75 * other[name][1])
    corner = interpolate([one, other], [0.0, 1.0])
    assert all(torch.equal(corner[name][i], other[name][i]) for name in other for i in (0, 1))
    a, b = mixed[Q0]
    products = 0.25 * one[Q0][1] @ one[Q0][0] + 0.75 * other[Q0][1] @ other[Q0][0]
    assert (b @ a - products).abs().mean() > 1e-3  # not the sum of the products


def test_compounding_interpolations_start_from_the_one_before() -> None:
    one, zero = (Policy("base", {"q": (torch.full((1, 2), value), torch.full((2, 1), value))}) for value in (1.0, 0.0))
    points = [(0.8, 0.2), (0.6, 0.4), (0.4, 0.6), (0.2, 0.8)]
    expected_of = {interpolated_policies: [0.8, 0.6, 0.4, 0.2], compounding_policies: [0.0384, 0.048, 0.08, 0.2]}
    for interpolated, expected in expected_of.items():
        found = interpolated([one, zero], points)
        for factors in zip(*(policy.factors["q"] for policy in found), strict=True):
            torch.testing.assert_close(torch.stack([factor[0, 0] for factor in factors]), torch.tensor(expected))


def test_adapters_of_other_ranks_or_modules_are_not_interpolated(adapter_folders: list[Path]) -> None:
    first, second, other = (read_adapter(folder).factors for folder in adapter_folders)
    with pytest.raises(UserError, match="different ranks"):
        interpolate([first, second], [0.5, 0.5])
    with pytest.raises(UserError, match="target modules cannot be interpolated"):
        interpolate([first, other], [0.5, 0.5])


# what is refused


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),  # changes the base weights when it is loaded
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
    ],
)
def test_features_that_a_stack_cannot_carry_are_refused(
    lively_model: Path, tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    folder = make_tiny_adapter(tmp_path / "adapter", lively_model, 1, **settings)
    with pytest.raises(UserError, match=rf"{folder}: .*{named}.* cannot be carried by stacked adapters"):
        read_adapter(folder)


@pytest.fixture
def folder(adapter_folders: list[Path], tmp_path: Path) -> Path:
    """A copy of an adapter, to be damaged."""
    return Path(shutil.copytree(adapter_folders[0], tmp_path / "copy"))


def test_a_missing_folder_and_a_folder_without_adapter_are_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=rf"{missing}: no PEFT adapter here \(adapter_config\.json is missing\)"):
            read_adapter(missing)


def test_an_adapter_of_another_kind_is_refused(lively_model: Path, tmp_path: Path) -> None:
    config = IA3Config(task_type=TaskType.CAUSAL_LM, target_modules=["k_proj"], feedforward_modules=[])
    get_peft_model(load(lively_model), config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not a LoRA adapter"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_configuration_is_refused(folder: Path, content: str) -> None:
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(UserError, match=str(folder)):
        read_adapter(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS_FILE), folder / "adapter_model.bin")
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is missing; weights are read as safetensors"):
        read_adapter(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    for damaged in (whole[:-10], b"", b"not safetensors"):
        (folder / WEIGHTS_FILE).write_bytes(damaged)
        with pytest.raises(UserError, match=r"adapter_model\.safetensors: damaged"):
            read_adapter(folder)


KEY = f"base_model.model.{Q0}.lora_%s.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(KEY % "B"), "lora_A.weight' has no lora_B"),
        (lambda tensors: tensors.pop(KEY % "A"), "lora_B.weight' has no lora_A"),
        (lambda tensors: tensors.clear(), "holds no adapter"),
        (lambda tensors: tensors.update(odd=torch.zeros(1)), "unexpected tensor 'odd'"),
        (lambda tensors: tensors.update({KEY % "B": torch.zeros(64, 5)}), "rank 4 in lora_A, 5 in lora_B"),
    ],
)
def test_a_file_that_is_not_whole_pairs_is_refused(folder: Path, change: Any, message: str) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(UserError, match=rf"adapter_model\.safetensors: .*{message}"):
        read_adapter(folder)


# policies over their base


def recipe(base: Path, *folders: Path) -> Recipe:
    objectives = [Objective(f"o{index}", adapter=str(folder)) for index, folder in enumerate(folders)]
    return Recipe("test", str(base), objectives, Data(train=[], validation=[]))


def test_policies_stand_over_their_base_in_the_objectives_order(
    lively_model: Path, adapter_folders: list[Path]
) -> None:
    settings = recipe(lively_model, *adapter_folders)
    policies = load_policies(settings, read_policies(settings, "align"), with_base=False)
    with torch.no_grad():
        groups = policies.stacks[0].model(input_ids=IDS.repeat(4, 1)).logits.chunk(4)
    for group, folder in zip(groups, adapter_folders, strict=False):
        assert_near(group, peft_logits(lively_model, folder))


def test_an_adapter_of_another_base_is_refused_by_name(
    lively_model: Path, adapter_folders: list[Path], tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=2)
    config = json.loads((other / "config.json").read_text())
    deeper = {"num_hidden_layers": 3}
    wider = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    for name, change in (("deeper", deeper), ("wider", wider)):
        target = Path(shutil.copytree(other, tmp_path / name))
        (target / "config.json").write_text(json.dumps({**config, **change}))
        (target / "model.safetensors").unlink()
        AutoModelForCausalLM.from_config(type(load(other).config).from_pretrained(target)).save_pretrained(target)
        foreign = make_tiny_adapter(tmp_path / f"{name}-adapter", target, 1)
        settings = recipe(lively_model, adapter_folders[0], foreign)
        with pytest.raises(UserError, match=rf"{foreign}: .*an adapter of another base\?"):
            load_policies(settings, read_policies(settings, "align"), with_base=False)


def test_both_kinds_of_interpolation_are_the_adapter_at_its_corner(lively_model: Path, tmp_path: Path) -> None:
    folders = [make_tiny_adapter(tmp_path / name, lively_model, seed) for seed, name in enumerate("ab")]
    first, second = (read_adapter(folder).factors for folder in folders)
    for mixed in (interpolate([first, second], (0.0, 1.0)), weighted_sum([first, second], (0.0, 1.0))):
        for name, (a, b) in second.items():
            torch.testing.assert_close(mixed[name][1] @ mixed[name][0], b @ a, rtol=0, atol=0)
    inside = weighted_sum([first, second], (0.3, 0.7))
    for name, (a, b) in inside.items():
        (a1, b1), (a2, b2) = first[name], second[name]
        torch.testing.assert_close(b @ a, 0.3 * b1 @ a1 + 0.7 * b2 @ a2)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_none_are_refused_with_the_tensor(folder: Path, value: float) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    tensors[KEY % "B"][3, 1] = value
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(UserError, match=rf"adapter_model\.safetensors: '{KEY % 'B'}' holds .* not finite"):
        read_adapter(folder)
