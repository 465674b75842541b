"""Many recipes from one: grids, ablations, tuning."""
