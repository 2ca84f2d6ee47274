"""What a stage reads, as its manifest names it: the folders of other stages, each with the command that makes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sipo_pl.recipe.recipe import Recipe
from sipo_pl.registry import PLACES, command_of
from sipo_pl.stage import COMPARED, POLICIES, Read

Inputs = dict[str, tuple[Path, str]]  # name in the manifest -> folder, and the command that makes it


def stage_inputs(place: str, recipe: Recipe, settings: Mapping[str, Any]) -> Inputs:
    """Return the folders that a stage reads: all that its entry in the registry names.

    Args:
        place: its name in the graph, such as sample or evaluate-align.
        recipe: what the stages share, and whose round it is.
        settings: its options, which may leave inputs out.
    """
    inputs: Inputs = {}
    for read in PLACES[place][1].reads:
        if read.seen_by != "graph" and (name := _chosen(read, recipe, settings)):
            layout = recipe.layout.previous if read.previous else recipe.layout
            if layout is not None:
                inputs[f"previous {name}" if read.previous else name] = stage_input(recipe, name, layout.round)
    return inputs


def stage_input(recipe: Recipe, name: str, round: int | None = None) -> tuple[Path, str]:
    """Return the folder of a stage and the command that makes it.

    Args:
        recipe: what the stages share.
        name: of its place in the graph.
        round: of which round; the recipe's where not given.
    """
    layout = recipe.layout.at(round or recipe.round)
    return layout.stage(name), command_of(name, round=layout.round if PLACES[name][1].each_round else 1)


def _chosen(read: Read, recipe: Recipe, settings: Mapping[str, Any]) -> str | None:
    if read.what in (POLICIES, COMPARED):  # adapters, which the stage's own code names
        return None
    if read.option is not None:
        value: Any = settings
        for key in read.option.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return read.instead if str(value).lower() == read.off else read.what
    return read.what if not read.when_on or recipe.runs(read.what) else None
