"""All stages, one object each, and the methods of a comparison. No other module lists stages."""

from sipo_pl.registry.stages import (
    DEFAULT_STAGE,
    METHODS,
    PLACES,
    SMALL_STAGES,
    STAGES,
    SWITCHES,
    TRAINER_STAGES,
    VERBS,
    command_of,
    place_of,
    verbs_of,
)

__all__ = [
    "DEFAULT_STAGE",
    "METHODS",
    "PLACES",
    "SMALL_STAGES",
    "STAGES",
    "SWITCHES",
    "TRAINER_STAGES",
    "VERBS",
    "command_of",
    "place_of",
    "verbs_of",
]
