"""What a model costs and what a plan saves: seconds, bytes, parameters."""
