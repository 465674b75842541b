"""The command line: the group of commands, their options and what the shell completes."""
