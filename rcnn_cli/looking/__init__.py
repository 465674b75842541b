"""Looking at a recipe's results: tables, figures and drawings."""
