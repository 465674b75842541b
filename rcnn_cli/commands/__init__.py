"""The commands, their options and shell completion."""
