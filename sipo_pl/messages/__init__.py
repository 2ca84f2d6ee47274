"""What is said to a user: errors, logs, progress; and which process of a command speaks."""
