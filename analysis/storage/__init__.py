"""Where runs are read from: folders and object stores."""
