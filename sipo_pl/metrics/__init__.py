"""Metrics of fronts: pure functions of the mean rewards of points."""
