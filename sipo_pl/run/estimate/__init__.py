"""What a run will take, before it is started: rows, tokens, time, memory and disk of each stage."""
