"""What a model is, before anything is computed with it."""
