"""Callbacks of the trainer, one a file."""
