"""Recipes, the graph that a recipe describes, and differences between recipes."""
