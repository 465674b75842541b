"""What all stages have in common: cards, kinds of data, settings, inputs, execution and errors."""
