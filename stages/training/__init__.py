"""What the stages that train a network share."""
