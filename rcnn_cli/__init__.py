"""The command line: commands, recipes, running, results; exceptions become sentences and exit codes here."""
