"""Small stages, which load no model or only rewards: one typed function a file."""
