"""Recipes, the graph that one describes, and where two differ."""
