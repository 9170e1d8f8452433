"""What runs a decoder: clips to embedded batches, states, logits, losses, and the parts of a layer."""
