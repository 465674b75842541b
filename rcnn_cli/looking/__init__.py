"""What a recipe has made, as tables, figures and drawings."""
