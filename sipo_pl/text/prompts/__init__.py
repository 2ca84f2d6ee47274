"""Review and rewrite prompts: text files with placeholders, and the code that fills and cuts them."""
