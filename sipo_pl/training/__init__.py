"""LightningModules that fit, one a file, with what they share; checkpoints."""
