"""Durable state: jobs, workflows and events, in one database."""

from joblet.store.database import Database
from joblet.store.events import Events
from joblet.store.jobs import Store
from joblet.store.workflows import Workflows

__all__ = ["Database", "Events", "Store", "Workflows"]
