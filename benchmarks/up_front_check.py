"""How long `run` takes to check its stages before the first one starts: `python -m benchmarks.up_front_check [RECIPE]`.

The libraries are imported first, as they are for the stages too. Then each command is read, and its module and data are
made. Seconds of the clock, and of the processor in user mode, which a busy machine changes little.
"""

import os
import sys
import time
from collections.abc import Callable

RECIPE = "quickstart/recipe.yaml"


def seconds(work: Callable[[], object]) -> str:
    clock, user = time.perf_counter(), os.times().user
    work()
    return f"{time.perf_counter() - clock:.2f} s, of the processor {os.times().user - user:.2f} s"


def main(recipe_name: str = RECIPE) -> None:
    def import_libraries() -> None:
        import sipo_pl.run.preload  # noqa: F401

    print(f"libraries   {seconds(import_libraries)}")
    from sipo_pl.recipe.config.overrides import Overrides, parse_recipe
    from sipo_pl.recipe.graph.run import build_graph
    from sipo_pl.run.runner import command
    from sipo_pl.run.stage_check import check_command

    overrides = Overrides(())
    nodes = {node.config: node for node in build_graph(parse_recipe(recipe_name, overrides))}
    commands = {name: command(node, recipe_name, overrides) for name, node in nodes.items()}

    def check() -> None:
        for name, words in commands.items():
            print(f"  {name:<10}{seconds(lambda words=words: check_command(words[0], words[1:]))}")  # type: ignore[misc]

    print(f"check       {seconds(check)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
