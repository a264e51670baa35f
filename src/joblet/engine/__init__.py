"""Runs workflows: which there are, and each of them from its start to its end."""

from joblet.engine.engine import Engine, WorkflowOrder

__all__ = ["Engine", "WorkflowOrder"]
