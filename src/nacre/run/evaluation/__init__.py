"""A run held against its data: every number with its interval, its floor and its protocol."""

from nacre.run.evaluation.assemble import evaluate
from nacre.run.evaluation.rows import SCHEMA_VERSION, Evaluation, Row

__all__ = ["SCHEMA_VERSION", "Evaluation", "Row", "evaluate"]
