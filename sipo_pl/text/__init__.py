"""Templates, prompts, tokens and masks, marks of generated text."""
