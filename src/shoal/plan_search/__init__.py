"""Find the shallowest plan within a budget, and confirm it on clips that the search has not seen."""
