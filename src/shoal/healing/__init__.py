"""Train a little after pruning: one file for each target, and what a healed checkpoint says of itself."""
