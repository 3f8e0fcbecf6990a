"""Per-host history: durations, control workload, quarantine, deadlines."""
