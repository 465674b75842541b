"""Many variants of one recipe: grids, ablations, tuning."""
