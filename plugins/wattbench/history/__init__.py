"""What earlier runs say of a host: durations, control workload, quarantine, deadlines."""
