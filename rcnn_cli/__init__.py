"""The front door: one command per stage, recipes, progress, and the one place where an exception becomes a sentence."""
