"""What of a stage's command can be checked, and what its folder is made of, before a model is loaded."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace

from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.config.resolve import Settings, resolve, stage_function
from sipo_pl.recipe.recipe import is_of_round
from sipo_pl.registry import TRAINER_STAGES
from sipo_pl.storage.model_hashes import no_long_reading
from sipo_pl.storage.provenance import Provenance


def make(settings: Settings) -> Namespace:
    """Return a trainer stage's settings with its module and data, which check what they are given.

    Raises:
        UsageError: what running the stage would raise before it touches a file.
    """
    from sipo_pl.engine.models.quantization import check_four_bits
    from sipo_pl.messages import logs
    from sipo_pl.training import zero

    logs.quiet_libraries()
    recipe = settings.recipe
    if recipe.round > 1 and not is_of_round(settings.folder_name):
        raise UsageError(f"{settings.folder_name} belongs to the run as a whole, not to round {recipe.round}")
    if recipe.quantize:
        check_four_bits()
    if settings.verb == "predict" and zero.is_zero(settings["trainer.strategy"]):
        raise UsageError(
            "trainer.strategy: no prediction under DeepSpeed, whose devices would wait for one another for ever "
            "where their texts end at different lengths; --config strategies/ddp.yaml has a copy of the model on "
            "each device, and --recipe.device_map auto spreads one that is too large over all"
        )
    return settings.instantiate()


@dataclass(frozen=True)
class Outlook:
    """What `run` has to know of a stage before it starts it.

    Args:
        complete: its folder holds what it would make
        forks: it runs in one process, which may be forked; with several devices it starts the others itself
    """

    complete: bool
    forks: bool


def check_command(verb: str, arguments: Sequence[str]) -> Outlook:
    """Check a stage's command as far as that takes no file of the run; return its outlook, taken as not complete.

    Raises:
        UsageError: what running the stage would raise before it touches a file.
    """
    settings = resolve(verb, arguments)
    if settings.stage in TRAINER_STAGES:
        make(settings)
    elif check := getattr(_module_of(settings.stage), "check", None):  # of what its parser does not see
        check(settings.recipe)
    return Outlook(False, _forks(settings))


def look_at(verb: str, arguments: Sequence[str]) -> Outlook:
    """Return the outlook of a stage whose folder may be complete.

    Raises:
        UsageError: as `check_command` does.
    """
    settings = resolve(verb, arguments)
    try:
        with no_long_reading():
            complete = provenance_of(settings).is_complete
    except UsageError:
        raise
    except UserError:  # an input is not there, of which the stage speaks where it is not made before
        complete = False
    return Outlook(complete, _forks(settings))


def _forks(settings: Settings) -> bool:
    trainer = settings["trainer"]
    return trainer is None or (str(trainer["devices"]) == "1" and trainer["strategy"] == "auto")


def provenance_of(settings: Settings) -> Provenance:
    """Return what a stage's folder is made of: the keys and the hashes that the stage itself opens it with.

    Raises:
        UsageError: what running the stage would raise before it touches a file.
        UserError: an input is missing, not complete or damaged.
    """
    if settings.stage in TRAINER_STAGES:
        from sipo_pl.run.stage_folder import trainer_provenance

        made = make(settings)
        name = settings.folder_name
        return trainer_provenance(name, settings.recipe, made.model, made.data, settings.plain())
    made_of: Provenance = _module_of(settings.stage).provenance(**settings.arguments)
    return made_of


def _module_of(small_stage: str) -> Any:
    return importlib.import_module(stage_function(small_stage).__module__)
