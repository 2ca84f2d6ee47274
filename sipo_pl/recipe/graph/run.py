"""The stages of a run in order, made of the recipe's switches and rounds: what each reads, and how it is asked for."""

from collections.abc import Sequence

from sipo_pl.messages.errors import UsageError, nearest
from sipo_pl.recipe.graph.comparison import comparison_graph
from sipo_pl.recipe.graph.round import Node, round_nodes, switches
from sipo_pl.recipe.recipe import Recipe, in_round
from sipo_pl.storage.artifacts import Manifest


def build_graph(recipe: Recipe) -> list[Node]:
    """Return the run's stages in order, without those that are switched off or have nothing to do.

    Raises:
        UsageError: the recipe names a single round, which is the run's to choose.
    """
    if recipe.round != 1:
        raise UsageError(
            f"round {recipe.round}: `run` goes through all rounds; the key is for the stages' own commands"
        )
    if recipe.methods:
        return comparison_graph(recipe)
    on = switches(recipe)
    aligned = tuple(f"align-{objective.name}" for objective in recipe.objectives if not objective.adapter)
    ground = ("prepare", "sft") if on["sft"] else ("prepare",)  # what every stage that runs a model reads
    nodes = [
        Node("prepare", "prepare", "prepare"),
        Node("reward_model", "reward_model", "reward_model", (), ("prepare",)),
        Node("sft", "sft", "sft", (), ("prepare",)),
        *(Node(name, "align", "align", ("--objective", name.removeprefix("align-")), ground) for name in aligned),
        Node("evaluate-align", "evaluate-align", "evaluate", ("--policies", "align"), (*ground, *aligned)),
        Node("measure-align", "measure-align", "measure", ("--policies", "align"), (*ground, "evaluate-align")),
    ]
    start = aligned
    for number in range(1, recipe.rounds + 1):
        nodes += round_nodes(recipe, on, number, (*ground, *start))
        start = tuple(in_round(f"realign-{name}", number) for name in recipe.objective_names)
    measured = [node.name for node in nodes if node.config == "measure" and on[node.switch]]
    nodes.append(Node("report", "report", "report", (), ("prepare", *measured)))
    return [node for node in nodes if on[node.switch]]


def check_inputs(nodes: Sequence[Node], graph: Sequence[Node], recipe: Recipe) -> None:
    """Check that what stages read is made by a stage of the run, or lies complete in its folder.

    Args:
        nodes: those that are to run.
        graph: all stages of the run.
        recipe: tells the run folder.

    Raises:
        UsageError: naming the stage that is switched off, and those that need it.
    """
    made = {node.name for node in graph}
    missing: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.inputs:
            manifest = None if name in made else Manifest.read(recipe.layout.run_dir / name)
            if name not in made and not (manifest and manifest.complete):
                missing.setdefault(name, []).append(node.name)
    if not missing:
        return
    name, needed_by = next(iter(missing.items()))
    instead = "switch it on"
    if name.startswith("align-"):
        instead += f", or give objective {name.removeprefix('align-')!r} an adapter"
    raise UsageError(
        f"stages: {name} is switched off and has not run in {recipe.layout.run_dir}, and {', '.join(needed_by)} "
        f"{'need' if len(needed_by) > 1 else 'needs'} it: {instead}, or switch off what needs it"
    )


def choose(nodes: Sequence[Node], only: Sequence[str] | None, first: str | None, until: str | None) -> list[Node]:
    """Return the stages that the options ask for.

    A stage is named by its folder, or by its kind for all objectives, which is ``realign`` for those of the first round
    and ``round-2/realign`` for those of a later one. ``round-2`` is a later round as a whole.

    Raises:
        UsageError: an unknown stage.
    """
    known = {name for node in nodes for name in node.names}
    for name in [*(only or []), *filter(None, [first, until])]:
        if name not in known:
            raise UsageError(f"no stage {name!r} in this recipe{nearest(name, known)}")
    chosen = [node for node in nodes if not only or set(node.names) & set(only)]
    start = next((i for i, node in enumerate(nodes) if first in node.names), 0)
    ends = [i for i, node in enumerate(nodes) if until in node.names]
    end = ends[-1] if ends else len(nodes)
    return [node for node in chosen if start <= nodes.index(node) <= end]
