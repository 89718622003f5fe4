"""Models side by side, measured alike, and which of their differences are real."""

from nacre.run.comparison.assemble import compare, compare_models
from nacre.run.comparison.table import Column, Comparison, Line, Pair

__all__ = ["Column", "Comparison", "Line", "Pair", "compare", "compare_models"]
