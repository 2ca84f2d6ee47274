"""Fused decoding: segments, slots, batches, beams, attention kernels."""
