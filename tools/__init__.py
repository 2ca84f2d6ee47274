"""What made the files that the repository ships; no part of the installed package."""
