"""What a comparison of methods shows: numbers, tables, pictures."""
