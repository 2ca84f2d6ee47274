"""A recipe and its parts, checks and components. Plain data, quick to import."""
