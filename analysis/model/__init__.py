"""Trials, records, findings and errors: the types that all of the analysis shares."""
