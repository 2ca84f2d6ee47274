"""Which stages of a comparison's graph make the policies of a method."""

from collections.abc import Iterable, Sequence

from sipo_pl.recipe.graph.round import Node
from sipo_pl.recipe.methods import Source, entrants
from sipo_pl.recipe.recipe import Recipe, in_round
from sipo_pl.registry import METHODS


def ends(recipe: Recipe, method: str) -> list[str]:
    """Return the names of the stages whose policies a method answers with."""
    sources = [source for entrant in entrants(recipe) if entrant.method == method for source, _ in entrant.mix]
    found = [name for source in sources for name in _makers(recipe, source)]
    own = {f"align-{one.name}" for one in recipe.objectives if one.adapter}
    if METHODS[method].kind == "base" and recipe.runs("sft"):
        found.append("sft")
    return [name for name in dict.fromkeys(found) if name not in own]


def _makers(recipe: Recipe, source: Source) -> Sequence[str]:
    """Return the stages that make a policy."""
    if source.kind in ("soup", "sum"):
        return [f"align-{name}" for name in recipe.objective_names]
    name = f"{source.kind}-{source.of}" if source.of else source.kind
    return [in_round(name, recipe.rounds)] if source.kind == "realign" else [name]


def stages_of(recipe: Recipe, method: str, graph: Iterable[Node]) -> list[str]:
    """Return the stages that a method takes from the prepared data on, shared ones among them, in order."""
    graph = list(graph)
    above = needed_by(ends(recipe, method), graph) - {"prepare"}
    return [node.name for node in graph if node.name in above]


def needed_by(names: Iterable[str], graph: Iterable[Node]) -> set[str]:
    """Return stages of a graph with all that they read, and all that those read."""
    inputs = {node.name: node.inputs for node in graph}
    found: set[str] = set()
    waiting = [name for name in names if name in inputs]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [one for one in inputs[name] if one in inputs]
    return found
