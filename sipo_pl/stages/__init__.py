"""Small commands: one typed function a file."""
