"""Watching a workflow to its end."""

from rnx.follow.session import follow, wait_for

__all__ = ["follow", "wait_for"]
