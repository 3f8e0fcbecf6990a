"""Raw meter logs to joules per window and phase, with uncertainty."""
