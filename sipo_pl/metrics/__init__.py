"""Metrics of fronts: pure functions and a torchmetrics class each."""
