"""Base models: loading, quantization, device map, ZeRO-3, merging."""
