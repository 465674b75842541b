"""What a stage is: its card, the kinds of arrows, settings, execution, errors."""
