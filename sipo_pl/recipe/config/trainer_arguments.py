"""What a stage makes of each argument of Lightning's Trainer: it is honoured, or refused before any work.

A stage plans its optimizer steps, validations and units itself, so that it can resume at any of them. Those arguments
that would change the plan behind its back are refused, each with the key that does what it is for.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sipo_pl.messages.errors import SettingError

SMALLER = "the key recipe.limit, or `run --limit`, makes a smoke run"
LENGTH = "trainer.max_epochs and trainer.max_steps say how long a fit is"
VALIDATIONS = "saving.validations says how often a fit is validated"

# honoured by Lightning as they stand, whatever their value
HONOURED = {
    "accelerator",
    "strategy",
    "devices",
    "precision",
    "logger",
    "callbacks",
    "limit_test_batches",
    "enable_progress_bar",
    "enable_model_summary",
    "gradient_clip_algorithm",
    "deterministic",
    "benchmark",
    "inference_mode",
    "use_distributed_sampler",  # the stages' loaders share the rows out themselves, in either case
    "profiler",
    "detect_anomaly",
    "plugins",
    "sync_batchnorm",
    "default_root_dir",
    "enable_autolog_hparams",
    "model_registry",
}


def _count(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _is_all(value: Any) -> bool:
    """Return whether a limit of batches is the share 1.0; the number 1 is one batch."""
    return isinstance(value, float) and value == 1


# argument -> whether a value is taken (null always is), and what is said of one that is not
LIMITED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_epochs": (lambda value: value == -1 or _count(value), "expected a number >0, or -1 beside trainer.max_steps"),
    "max_steps": (lambda value: value == -1 or _count(value), "expected a number >0, or -1 for no limit"),
    "num_nodes": (_count, "expected a number >0"),
    "accumulate_grad_batches": (_count, "expected a number >0"),
    "log_every_n_steps": (lambda value: value >= 0, "expected a number >=0"),
    "gradient_clip_val": (lambda value: 0 <= value < float("inf"), "expected a number >=0"),
    "limit_val_batches": (lambda value: value > 0, "expected a number >0: a fit is validated, and its best step kept"),
    "limit_train_batches": (_is_all, f"a fit trains on all of its batches; {SMALLER}"),
    "limit_predict_batches": (_is_all, f"a prediction makes all of its units; {SMALLER}"),
    "overfit_batches": (lambda value: value == 0, f"expected 0; {SMALLER}"),
    "fast_dev_run": (lambda value: not value, f"expected false; {SMALLER}"),
    "min_epochs": (lambda value: False, f"expected null; {LENGTH}"),
    "min_steps": (lambda value: False, f"expected null; {LENGTH}"),
    "max_time": (lambda value: False, "expected null; --stop_after 3h50m stops a stage, which goes on from there"),
    "val_check_interval": (_is_all, f"expected null; {VALIDATIONS}"),
    "check_val_every_n_epoch": (lambda value: value == 1, f"expected 1; {VALIDATIONS}"),
    "num_sanity_val_steps": (lambda value: value == 0, f"expected 0; {VALIDATIONS}"),
    "reload_dataloaders_every_n_epochs": (lambda value: value == 0, "expected 0; an epoch's order is the seed's"),
    "enable_checkpointing": (lambda value: value is True, "expected true; a fit resumes from checkpoints"),
    "barebones": (lambda value: not value, "expected false; a stage needs its checkpoints and its log"),
}


def check_trainer_arguments(values: Mapping[str, Any], verb: str) -> None:
    """Check the trainer's arguments of a stage's command.

    Args:
        values: argument -> value, those that are not given at their defaults.
        verb: fit, validate, test or predict.

    Raises:
        SettingError: the first one that is not honoured, with the key that does the same.
    """
    for name, (is_taken, problem) in LIMITED.items():
        value = values.get(name)
        if value is not None and not is_taken(value):
            raise SettingError(f"trainer.{name}", f"{problem}; found {value}")
    if verb == "fit" and values.get("max_epochs") == -1 and values.get("max_steps") in (None, -1):
        raise SettingError("trainer.max_epochs", "-1 has no end; trainer.max_steps gives one")
