"""DPO by TRL's own trainer, and as the released code goes about it: a pair a step, the reference in the loop."""

import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from benchmarks.measuring import clock
from benchmarks.models import TARGETS, Setting, load_model, load_tokenizer
from benchmarks.peers import response_logps_with_peft
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import collate

Pair = tuple[Encoded, Encoded]
LEARNING_RATE = 5e-4


class Objective(NamedTuple):
    """What is minimised.

    Args:
        beta: of DPO
        alpha: of the NLL term of chosen responses, a token; 0 is plain DPO
    """

    beta: float
    alpha: float = 0.0


class TRLOptions(NamedTuple):
    """A way to run TRL.

    Args:
        batch: pairs a step
        precompute: whether the reference is computed once, before the steps
        liger: whether Liger's kernels are used
    """

    batch: int
    precompute: bool
    liger: bool = False

    @property
    def name(self) -> str:
        words = [
            f"batch {self.batch}",
            *(["precomputed"] if self.precompute else []),
            *(["Liger"] if self.liger else []),
        ]
        return ", ".join(words)


class _StepEnds(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def counted(device: torch.device, pairs: int, batch: int) -> int:
    """Return how many of so many pairs are counted: on a GPU all, in a second pass; on a CPU all but a first batch."""
    return pairs if device.type == "cuda" else pairs - batch


def trl_seconds(setting: Setting, pairs: Sequence[Pair], options: TRLOptions, objective: Objective) -> float:
    """Train with `trl.DPOTrainer`; return the seconds of a pair of those that are counted."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):
        """Takes rows that are tokens already, so that all ways train on the same."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    rows = [
        {
            "prompt_ids": chosen.input_ids[: chosen.prompt_length],
            "chosen_ids": chosen.input_ids[chosen.prompt_length :],
            "rejected_ids": rejected.input_ids[rejected.prompt_length :],
        }
        for chosen, rejected in pairs
    ]
    lora = LoraConfig(r=setting.rank, lora_alpha=setting.rank, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    steps = _StepEnds(setting.device)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = DPOConfig(
            folder,
            beta=objective.beta,
            loss_type=["sigmoid", "sft"] if objective.alpha else ["sigmoid"],
            loss_weights=[1.0, objective.alpha] if objective.alpha else None,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=options.batch,
            precompute_ref_log_probs=options.precompute,
            use_liger_kernel=options.liger,
            gradient_checkpointing=False,
            bf16=setting.dtype == torch.bfloat16,
            use_cpu=setting.device.type == "cpu",
            num_train_epochs=2 if setting.device.type == "cuda" else 1,
            logging_strategy="no",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            max_length=None,
        )
        trainer = OnTokens(
            load_model(setting),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(setting),
            peft_config=lora,
            callbacks=[steps],
        )
        trainer.train()
    before = len(steps.ends) // 2 if setting.device.type == "cuda" else 1  # steps that are not counted
    return (steps.ends[-1] - steps.ends[before - 1]) / counted(setting.device, len(pairs), options.batch)


def released_seconds(setting: Setting, pairs: Sequence[Pair], objective: Objective) -> float:
    """Train as released, a pair a step and the reference in the loop; return the seconds of a pair that is counted."""
    released = _Released(setting, objective)
    count = counted(setting.device, len(pairs), 1)
    for pair in pairs if count == len(pairs) else pairs[:1]:
        released.step(pair)
    return clock(lambda: [released.step(pair) for pair in pairs[-count:]], setting.device) / count


class _Released:
    """Plain peft: one pair a step, and a forward of the reference before that of the policy.

    Args:
        setting: the model.
        objective: the loss.
    """

    def __init__(self, setting: Setting, objective: Objective) -> None:
        lora = LoraConfig(r=setting.rank, lora_alpha=setting.rank, target_modules=list(TARGETS), task_type="CAUSAL_LM")
        self.model, self.objective = get_peft_model(load_model(setting), lora).train(), objective
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.trained, self.optimizer = trained, torch.optim.AdamW(trained, lr=LEARNING_RATE)

    def step(self, pair: Pair) -> float:
        """Train on a pair; return its loss."""
        tokens = collate(pair).to(self.model.device)
        with torch.no_grad(), self.model.disable_adapter():
            reference = response_logps_with_peft(self.model, tokens)
        policy = response_logps_with_peft(self.model, tokens)
        gain = policy - reference
        loss = -torch.nn.functional.logsigmoid(self.objective.beta * (gain[0] - gain[1]))
        if self.objective.alpha:
            loss = loss - self.objective.alpha * policy[0] / pair[0].response_length
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())
