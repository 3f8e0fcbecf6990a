"""Fuzzing: every parser of the analysis on damaged input; ``make fuzz`` runs it for minutes."""
