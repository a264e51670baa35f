"""Durable state of jobs."""

from joblet.store.sqlite import Store

__all__ = ["Store"]
