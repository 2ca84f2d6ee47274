"""LightningModules, one a file."""
