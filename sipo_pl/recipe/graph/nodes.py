"""The nodes of a recipe's graph, made of what the registry says of each stage: one for each folder that it makes."""

from collections.abc import Iterable, Mapping, Sequence

from sipo_pl.method.weights import parse_point
from sipo_pl.recipe.graph.comparison import ends
from sipo_pl.recipe.graph.round import Node
from sipo_pl.recipe.methods import fitted
from sipo_pl.recipe.recipe import Recipe, in_round
from sipo_pl.registry import METHODS, PLACES
from sipo_pl.stage import COMPARED, POLICIES, Place, Read, Stage


def all_nodes(recipe: Recipe, on: Mapping[str, bool]) -> list[Node]:
    """Return the nodes of all stages, in order, also of those that are switched off or have no part in the recipe.

    Args:
        recipe: tells objectives, rounds and compared methods.
        on: which kinds of stages are on, see `switches`.
    """
    before, of_round, after = _parts(recipe)
    nodes = [node for place in before for node in _nodes(place, recipe, on, 1)]
    for number in range(1, recipe.rounds + 1):
        nodes += [node for place in of_round for node in _nodes(place, recipe, on, number)]
    return nodes + [node for place in after for node in _nodes(place, recipe, on, 1)]


def _parts(recipe: Recipe) -> tuple[list[str], list[str], list[str]]:
    """Return the places before the rounds, those of a round, and those that read what rounds make."""
    fits = [METHODS[name].fit for name in recipe.methods]
    before: list[str] = []
    of_round: list[str] = []
    after: list[str] = []
    for name, (stage, place) in PLACES.items():
        whats = {read.what for read in place.reads}
        if place.each_round:
            of_round.append(name)
        elif COMPARED in whats or whats & {*of_round, *after}:
            after.append(name)
        elif stage.name not in fits:
            before.append(name)
    return [*before, *(name for name in fits if name)], of_round, after


def _nodes(name: str, recipe: Recipe, on: Mapping[str, bool], number: int) -> list[Node]:
    """Return the nodes of a place in a round: one for each objective or point that has a folder."""
    stage, place = PLACES[name]
    inputs = tuple(dict.fromkeys(one for read in place.reads for one in _inputs(read, recipe, on, number)))
    more = [word for read in place.reads for word in read.option_words(on)]
    more += place.options(on, number)
    more += ["--recipe.round", str(number)] if number > 1 else []
    return [
        Node(in_round(folder, number), name, stage.name, (*options, *more), inputs, number)
        for folder, options in _folders(stage, place, recipe)
    ]


def _folders(stage: Stage, place: Place, recipe: Recipe) -> list[tuple[str, tuple[str, ...]]]:
    """Return the folders of a place in the first round, each with the options that choose it."""
    if "policies" in stage.options:
        return [(place.name, ("--policies", place.name.partition("-")[2]))]
    if "objective" not in stage.options:
        return [(place.name, ())]
    found = []
    for of in _values(stage, recipe):
        options = ("--objective", _labelled(of, recipe))
        if "weights" in stage.options:
            options = (*options, "--weights", of)
        found.append((f"{stage.name}-{of}" if of else stage.name, options))
    return found


def _values(stage: Stage, recipe: Recipe) -> list[str]:
    """Return the objectives or points that a stage has a folder for; "" for a stage that has one for all."""
    if stage.compared:
        methods = [name for name in recipe.methods if METHODS[name].fit == stage.name]
        return list(dict.fromkeys(of for name in methods for of in fitted(recipe, name)))
    return [one.name for one in recipe.objectives if not (one.adapter and stage.skips_brought)]


def _labelled(of: str, recipe: Recipe) -> str:
    """Return the objective whose labels a fit trains on: the first that has a weight at a point."""
    if of in recipe.objective_names:
        return of
    weights = parse_point(of, recipe.objective_names) if of else ()
    named = (name for name, weight in zip(recipe.objective_names, weights, strict=False) if weight)
    return next(named, recipe.objective_names[0])


def _inputs(read: Read, recipe: Recipe, on: Mapping[str, bool], number: int) -> Iterable[str]:
    """Return the names of the nodes that an input stands for, in a round."""
    if read.seen_by == "manifest":
        return []
    if read.what == COMPARED:
        return [end for name in recipe.methods for end in ends(recipe, name)]
    if read.what == POLICIES:
        return _of("align" if number == 1 else "realign", recipe, [number - 1])
    if (name := read.chosen(on)) is None:
        return []
    if read.every_round:
        return _of(name, recipe, range(1, recipe.rounds + 1))
    return _of(name, recipe, [number - 1 if read.previous else number])


def _of(name: str, recipe: Recipe, rounds: Sequence[int]) -> list[str]:
    stage, place = PLACES[name]
    folders = [folder for folder, _ in _folders(stage, place, recipe)]
    if not place.each_round:
        return folders
    return [in_round(folder, number) for number in rounds if number >= 1 for folder in folders]
