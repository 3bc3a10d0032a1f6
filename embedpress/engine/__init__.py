"""Where a job runs: a resumable writer of shards."""

from embedpress.engine.batch import EncodeBatch
from embedpress.engine.job import Job, Piece
from embedpress.engine.options import RunOptions
from embedpress.engine.run import run_job

__all__ = ["EncodeBatch", "Job", "Piece", "RunOptions", "run_job"]
