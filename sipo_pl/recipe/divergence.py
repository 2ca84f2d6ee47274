"""The divergence that a recipe names."""

from sipo_pl.method.divergences import Alpha, Divergence
from sipo_pl.recipe.components import instantiate
from sipo_pl.recipe.recipe import Recipe


def recipe_divergence(recipe: Recipe) -> Divergence:
    """Return the divergence that a recipe names.

    Raises:
        UsageError: no such class, or arguments that it does not take.
        UserError: an argument out of range.
    """
    divergence = instantiate(recipe.divergence, Divergence, "divergence")  # type: ignore[type-abstract]
    return recipe.part(Alpha)(divergence.alpha) if type(divergence) is Alpha else divergence
