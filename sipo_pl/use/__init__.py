"""What a finished run is for: its policies opened, exported, talked to."""
