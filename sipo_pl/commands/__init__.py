"""Commands that are no stage: one typed function a file."""
