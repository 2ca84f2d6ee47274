"""Shipped recipes and stage files, named in `--config` without their folder, such as `quickstart/recipe.yaml`."""
