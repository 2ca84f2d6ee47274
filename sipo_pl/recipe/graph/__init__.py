"""The stages of a recipe in order, with what each reads: of a run, a round and a comparison."""
