"""Features of regions, one column per network layer, and the linear models trained on them."""
