"""The stages of a comparison: what methods share is made once, and all of them answer the same prompts."""

from collections.abc import Iterable, Sequence

from sipo_pl.method.weights import parse_point
from sipo_pl.recipe.graph.round import Node, round_nodes, switches
from sipo_pl.recipe.methods import METHODS, PolicySource, entrants, fitted
from sipo_pl.recipe.recipe import Objective, Recipe, in_round

EVALUATION = ("evaluate", "measure")  # stages of a run by itself, in whose place all methods answer and are judged
SHARED = ("prepare", "calibrate")  # what belongs to no method


def comparison_graph(recipe: Recipe) -> list[Node]:
    """Return the stages of a comparison, in order."""
    on = switches(recipe)
    ground = ("prepare", "sft") if on["sft"] else ("prepare",)
    nodes = [Node("prepare", "prepare", "prepare")]
    if on["reward_model"]:
        nodes.append(Node("reward_model", "reward_model", "reward_model", (), ("prepare",)))
    nodes.append(Node("calibrate", "calibrate", "calibrate", (), tuple(node.name for node in nodes)))
    if on["sft"]:
        nodes.append(Node("sft", "sft", "sft", (), ("prepare",)))
    made = list(dict.fromkeys(end for name in recipe.methods for end in ends(recipe, name)))
    aligned = _alignments(recipe)
    if set(aligned) & set(made) or any(METHODS[name].builds_on_alignment for name in recipe.methods):
        for name in aligned:
            nodes.append(Node(name, "align", "align", ("--objective", name.removeprefix("align-")), ground))
    for name in recipe.methods:
        if fit := METHODS[name].fit:
            above = (*ground, *aligned) if METHODS[name].builds_on_alignment else ground
            nodes += [_fit(recipe, fit, of, above) for of in fitted(recipe, name)]
    if "sipo" in recipe.methods:
        nodes += _self_improvement(recipe, on, ground)
    nodes.append(Node("answer", "answer", "answer", (), tuple(dict.fromkeys((*ground, *made)))))
    nodes.append(Node("judge", "judge", "judge", (), ("prepare", "calibrate", "answer")))
    nodes.append(Node("compare", "compare", "compare", (), ("prepare", "calibrate", "answer", "judge")))
    return nodes


def _alignments(recipe: Recipe) -> tuple[str, ...]:
    return tuple(f"align-{one.name}" for one in recipe.objectives if not one.adapter)


def _fit(recipe: Recipe, fit: str, of: str, above: tuple[str, ...]) -> Node:
    """Return the fit of a method for an objective or at a point, or its only one."""
    if of in recipe.objective_names:
        return Node(f"{fit}-{of}", fit, fit, ("--objective", of), above)
    weights = parse_point(of, recipe.objective_names) if of else ()
    labels = _labelled(recipe.objectives, weights)
    at = ("--weights", of) if of else ()
    return Node(f"{fit}-{of}" if of else fit, fit, fit, ("--objective", labels.name, *at), above)


def _labelled(objectives: Sequence[Objective], weights: Sequence[float]) -> Objective:
    """Return the first objective with a weight, whose labels MODPO trains on."""
    return next((one for one, weight in zip(objectives, weights, strict=False) if weight), objectives[0])


def _self_improvement(recipe: Recipe, on: dict[str, bool], ground: tuple[str, ...]) -> list[Node]:
    nodes: list[Node] = []
    start = _alignments(recipe)
    for number in range(1, recipe.rounds + 1):
        found = round_nodes(recipe, on, number, (*ground, *start))
        nodes += [node for node in found if node.config not in EVALUATION and on[node.switch]]
        start = tuple(in_round(f"realign-{name}", number) for name in recipe.objective_names)
    return nodes


def ends(recipe: Recipe, method: str) -> list[str]:
    """Return the names of the stages whose policies a method answers with."""
    sources = [source for entrant in entrants(recipe) if entrant.method == method for source, _ in entrant.mix]
    found = [name for source in sources for name in _makers(recipe, source)]
    own = {f"align-{one.name}" for one in recipe.objectives if one.adapter}
    if METHODS[method].kind == "base" and recipe.runs("sft"):
        found.append("sft")
    return [name for name in dict.fromkeys(found) if name not in own]


def _makers(recipe: Recipe, source: PolicySource) -> Sequence[str]:
    """Return the stages that make a policy."""
    if source.kind in ("soup", "sum"):
        return [f"align-{name}" for name in recipe.objective_names]
    name = f"{source.kind}-{source.of}" if source.of else source.kind
    return [in_round(name, recipe.rounds)] if source.kind == "realign" else [name]


def stages_of(recipe: Recipe, method: str, graph: Iterable[Node]) -> list[str]:
    """Return the stages that a method takes from the prepared data on, shared ones among them, in order."""
    inputs = {node.name: node.inputs for node in graph}
    found: set[str] = set()
    open_ends = [name for name in ends(recipe, method) if name in inputs]
    while open_ends:
        name = open_ends.pop()
        if name not in found and name not in SHARED:
            found.add(name)
            open_ends += [one for one in inputs[name] if one in inputs]
    return [name for name in inputs if name in found]
