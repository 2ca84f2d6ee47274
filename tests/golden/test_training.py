"""Training runs, step by step, through the module of alignment; the normaliser of the NLL term."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import MODEL, adapters, cases, check

from sipo_pl.data.loader import FrozenValues, TrainingPair, collate_pairs, row_key
from sipo_pl.data.preference import mask_prompt, preference_pairs
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.policies import Policy, stack_policies
from sipo_pl.method.losses import DPO, DPOLW, MODPO, DPOWithNLL, PreferenceLoss
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.parts import chosen_part
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.rewards.implicit import policy_logps
from sipo_pl.text.templates import PromptTemplate
from sipo_pl.text.tokenizers import load_tokenizer
from sipo_pl.training.dpo import DPOAlignment
from sipo_pl.training.preference import LoRASettings, PreferenceModule

AS_RELEASED = Compat(common_prefix_mask=True, padded_nll=True)
LOSSES: dict[str, PreferenceLoss] = {
    "dpo": DPO(),
    "dpo_nll": DPOWithNLL(alpha=0.1),
    "dpolw": DPOLW(weights="0.4,0.6"),
    "modpo": MODPO(weights="0.4,0.6"),
}


def recipe(compat: Compat = AS_RELEASED) -> Recipe:
    objectives = [Objective("first"), Objective("second", adapter=adapters(["a16_0"])[0])]
    return Recipe("golden", MODEL, objectives, Data(train=[], validation=[]), compat=compat)


def training_pairs(data: dict[str, list[Any]], compat: Compat = AS_RELEASED) -> list[TrainingPair]:
    rows = [
        {
            "pair_id": str(index),
            "prompt": data["raw_prompt"][index],
            "response_0": data["chosen"][index],
            "response_1": data["rejected"][index],
            "preferred": {"first": 0, "second": int(data["contradict"][index])},
        }
        for index in range(len(data["raw_prompt"]))
    ]
    template = PromptTemplate(load_tokenizer(MODEL), recipe().template)
    pairs, dropped = preference_pairs(
        rows,  # type: ignore[arg-type]
        "first",
        template,
        512,
        mask=chosen_part(mask_prompt, compat),
    )
    assert not dropped
    return pairs


def frozen_values(data: dict[str, list[Any]], beta: float) -> FrozenValues:
    """Return each row's log-probability under the base, and its implicit reward under the margin adapter.

    The released code masks the common prefix in the policy's and the base's log-probability, but not in the reward.
    """
    folder = Path(adapters(["a16_0"])[0])
    margin = stack_policies([Policy(MODEL, read_adapter(folder).factors, folder)], "float32")
    masked, whole = (
        [row for pair in training_pairs(data, one) for row in pair.rows] for one in (AS_RELEASED, Compat())
    )
    keys = [row_key(row) for row in masked]
    _, reference = policy_logps(margin, 1, masked, 8192)
    logps, base = policy_logps(margin, 1, whole, 8192)
    scores = torch.stack([torch.zeros(len(keys)), beta * (logps - base)[0]], dim=1).tolist()
    return FrozenValues(
        dict(zip(keys, reference[0].tolist(), strict=True)), ["first", "second"], dict(zip(keys, scores, strict=True))
    )


def start_at(module: PreferenceModule, adapter: str) -> None:
    """Set the ranks in training to those of a golden adapter."""
    read = read_adapter(Path(adapters([adapter])[0]))
    for name, layer in module.stack.layers.items():
        a, b = read.factors[name]
        assert layer.lora_A is not None
        assert layer.lora_B is not None
        layer.lora_A.data[0], layer.lora_B.data[0] = a, b / read.scale


def module_of(loss: PreferenceLoss, compat: Compat = AS_RELEASED) -> PreferenceModule:
    module = DPOAlignment(recipe(compat), "first", torch.optim.AdamW, loss=loss, lora=LoRASettings(r=8, alpha=16))
    module.configure_model()
    return module


@pytest.mark.parametrize("name", LOSSES)
def test_a_training_run(name: str) -> None:
    golden = cases("train_runs")
    run = golden["runs"][name]
    assert (len(golden["runs"]), len(run["steps"]), len(run["final_adapter"])) == (4, 20, 16)
    module, pairs = module_of(LOSSES[name]), training_pairs(golden["data"])
    start_at(module, run["init"])
    values = frozen_values(golden["data"], run["beta"])
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in parameters) == run["n_trainable"]
    settings = {key: run[key] for key in ("lr", "betas", "eps", "weight_decay")}
    optimizer = torch.optim.AdamW(parameters, **settings)
    for step, order in zip(run["steps"], golden["order"], strict=True):
        batch = collate_pairs([pairs[index] for index in order], values, len(order))
        assert batch.tokens.input_ids.shape[1] == step["padded_len"]
        logps = module(batch)
        output = module.loss(logps, module.context)
        optimizer.zero_grad()
        output.losses.mean().backward()
        norm = math.sqrt(sum(float(one.grad.square().sum()) for one in parameters if one.grad is not None))
        optimizer.step()
        found = {
            "logps/chosen": logps.policy_chosen,
            "logps/rejected": logps.policy_rejected,
            "rewards/chosen": output.chosen_rewards,
            "rewards/rejected": output.rejected_rewards,
            "rewards/margins": output.chosen_rewards - output.rejected_rewards,
        }
        check("training", [float(output.losses.detach().mean()), norm], [step["loss"], step["grad_norm"]])
        for metric, value in found.items():
            check("training", value.detach().tolist(), step["metrics"][metric])
    for key, expected in run["final_adapter"].items():
        layer, _, kind = key.removeprefix("base_model.model.").rpartition(".lora_")
        tensor = getattr(module.stack.layers[layer], f"lora_{kind[0]}").detach().double()[0]
        found_there = [float(tensor.sum()), float(tensor.norm()), tensor.flatten()[:8].tolist()]
        check("trained adapters", found_there, [expected["sum"], expected["norm"], expected["first8"]])


def test_the_normaliser_of_the_nll_term() -> None:
    """By accident the padded length of chosen and rejected; rightly the response tokens of the chosen row."""
    golden = cases("nll_normalizer")
    assert len(golden["cases"]) == 4
    for case in golden["cases"]:
        pairs = training_pairs(golden["data"])
        module = module_of(DPOWithNLL(alpha=case["alpha"]))
        start_at(module, case["adapter"])
        batch = collate_pairs([pairs[row] for row in case["rows"]], frozen_values(golden["data"], case["beta"]), 2)
        with torch.no_grad():
            logps = module(batch)
            losses = module.loss(logps, module.context).losses
        assert logps.chosen_lengths.tolist() == case["chosen_seq_lengths"]
        assert batch.tokens.attention_mask.sum(dim=1).tolist() == case["attention_sum"]
        assert batch.tokens.response_mask.sum(dim=1).tolist() == case["label_tokens"]
        check("training", logps.policy_chosen.tolist(), case["policy_chosen"])
        check("training", logps.policy_rejected.tolist(), case["policy_rejected"])
        check("training", logps.reference_chosen.tolist(), case["ref_chosen"])
        check("training", logps.reference_rejected.tolist(), case["ref_rejected"])
        check("training", losses.tolist(), case["losses"])
        module.recipe.compat = Compat(common_prefix_mask=True)
        with torch.no_grad():
            assert module(batch).chosen_lengths.tolist() == case["label_tokens"][:2]
