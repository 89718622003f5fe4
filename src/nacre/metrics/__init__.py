"""Numbers that say how good a model is, each with its protocol."""
