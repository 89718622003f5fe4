"""The engine: objectives in motion, and what a run leaves behind. The loop is `loop.train`."""
