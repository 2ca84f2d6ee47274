"""A recipe and its parts, checks and components. Plain data, quick to import."""

from sipo_pl.recipe.recipe import Data, Objective, Recipe, RunLayout, Template

__all__ = ["Data", "Objective", "Recipe", "RunLayout", "Template"]
