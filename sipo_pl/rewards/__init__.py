"""Rewards: one protocol, one file each kind."""
