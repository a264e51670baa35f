"""Durable state: jobs, in one database with all else."""

from joblet.store.database import Database
from joblet.store.jobs import Store

__all__ = ["Database", "Store"]
