"""Command inspect: a row of a stage's data as the model sees it."""

from typing import TYPE_CHECKING, Literal

from sipo_pl.interop.numbers import NonNegativeInt
from sipo_pl.messages.errors import UsageError
from sipo_pl.registry import STAGES

if TYPE_CHECKING:
    InspectedStage = str
else:
    InspectedStage = Literal[tuple(name for name, stage in STAGES.items() if stage.inspected)]


def inspect(
    config: str,
    stage: InspectedStage = "align",
    row: NonNegativeInt = 0,
    objective: str | None = None,
    split: Literal["train", "validation"] = "train",
    run_dir: str | None = None,
) -> None:
    """Show a row of a stage's data as the model sees it: tokens, mask, BOS and EOS, merges, what is left out and why.

    Args:
        config: the recipe, as for run
        stage: whose data
        row: index of the row, from zero
        objective: whose preferences, for align; the first one's where not given
        split: of the prepared pairs, for align
        run_dir: run folder in the place of the recipe's
    """
    from rich.console import Console

    from sipo_pl.messages.logs import quiet_libraries
    from sipo_pl.recipe.config.overrides import Overrides, parse_recipe
    from sipo_pl.recipe.config.resolve import config_options, resolve
    from sipo_pl.text.tokenizers import load_template
    from sipo_pl.use.row_page import show
    from sipo_pl.use.row_view import Inspection
    from sipo_pl.use.stage_rows import seen_row

    quiet_libraries()
    changes = [] if run_dir is None else [f"recipe.run_dir={run_dir}"]
    recipe = parse_recipe(config, Overrides.gather([], changes, None))
    if objective is not None and stage != "align":
        raise UsageError(f"--objective: the rows of {stage} are the same for all objectives")
    name = recipe.objective(objective or recipe.objective_names[0]).name
    template = load_template(recipe.policy_base, recipe.dated_template)
    which = ["--objective", name] if "objective" in STAGES[stage].options else []
    settings = resolve(STAGES[stage].verb, [*config_options(stage, config), *which])
    asked = Inspection(recipe, template, settings.plain(), row, name, split)
    show(seen_row(stage, asked), asked, stage, Console(highlight=False, markup=False, emoji=False))
