"""Log-probabilities of responses: packed sequences, chunks, the reference cache, CUDA graphs."""
