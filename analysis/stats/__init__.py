"""Statistics: blocked comparisons within a host, effects across hosts, power, diagnostics."""
