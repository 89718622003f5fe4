"""A run held against its data: every number with its interval, its floor and its protocol."""

from nacre.run.evaluation.assemble import Examination, evaluate, examine, examined
from nacre.run.evaluation.rows import SCHEMA_VERSION, Evaluation, Row
from nacre.run.evaluation.subject import Settings

__all__ = ["SCHEMA_VERSION", "Evaluation", "Examination", "Row", "Settings", "evaluate", "examine", "examined"]
