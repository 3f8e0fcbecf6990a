"""Sources of runs: folders and object stores."""
