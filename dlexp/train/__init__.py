"""Training: one update, the loop around it, and how well the network does."""
