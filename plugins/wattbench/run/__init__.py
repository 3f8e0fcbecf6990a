"""One run: its id, plan, keys in the store, and stored documents."""
