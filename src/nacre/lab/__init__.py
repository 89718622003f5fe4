"""Experiments to look at: each a small world of which everything is known, drawn frame by frame while it is trained."""
