"""Base models with stacked LoRA adapters: loading, log-probabilities, decoding."""
