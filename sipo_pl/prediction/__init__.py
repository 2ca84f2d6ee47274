"""LightningModules that predict, one a file, with what they share."""
