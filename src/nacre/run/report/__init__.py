"""An evaluation as one page that can be sent to a colleague."""

from nacre.run.report.page import NAME, page, write

__all__ = ["NAME", "page", "write"]
