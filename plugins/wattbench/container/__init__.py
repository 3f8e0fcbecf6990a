"""Container images: references, registries, pulls."""
