"""LightningDataModules, one a file."""
