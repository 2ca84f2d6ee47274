"""Policies: a base model with a stack of LoRA adapters; loading, log-probabilities, generation."""
