"""The stages of a run in order, made of the recipe's switches and rounds: what each reads, and how it is asked for."""

from collections.abc import Sequence

from sipo_pl.messages.errors import UsageError, nearest
from sipo_pl.recipe.graph.comparison import needed_by
from sipo_pl.recipe.graph.node import Node, switches
from sipo_pl.recipe.graph.nodes import all_nodes
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.manifest import Manifest

COMPARISON = "compare"  # the stage whose inputs, and theirs, are the graph of a comparison


def build_graph(recipe: Recipe) -> list[Node]:
    """Return the run's stages in order, without those that are switched off or have nothing to do.

    Raises:
        UsageError: the recipe names a single round, which is the run's to choose.
    """
    if recipe.round != 1:
        raise UsageError(
            f"round {recipe.round}: `run` goes through all rounds; the key is for the stages' own commands"
        )
    on = switches(recipe)
    nodes = all_nodes(recipe, on)
    if recipe.methods:
        part = needed_by([COMPARISON], nodes)
        return [node for node in nodes if node.name in part and on.get(node.switch, True)]
    return [node for node in nodes if on.get(node.switch)]


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
