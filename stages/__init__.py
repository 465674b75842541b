"""The science: one folder per stage, and the few nouns that they share. It has never heard of a command line."""
