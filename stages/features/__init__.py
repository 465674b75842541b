"""Rows of boxes with columns for a network's layers, and the linear models on them."""
