"""Watching a workflow to its end."""

from rnx.follow.session import follow

__all__ = ["follow"]
