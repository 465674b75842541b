"""The training loop shared by all stages that train a network."""
