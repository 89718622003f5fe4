"""Data sources of every kind, brought to one array of images or points and split by content."""

from nacre.data.dataset import BadFile, DataSet
from nacre.data.report import Description, contact_sheet, describe
from nacre.data.settings import DataSettings
from nacre.data.sources import load

__all__ = ["BadFile", "DataSet", "DataSettings", "Description", "contact_sheet", "describe", "load"]
