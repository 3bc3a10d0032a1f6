"""Where a job runs: a resumable writer of shards."""

from embedpress.engine.job import Job, Piece
from embedpress.engine.local import run_job

__all__ = ["Job", "Piece", "run_job"]
