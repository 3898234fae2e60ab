"""Data sets as tensors in memory, and the batches drawn from them."""
