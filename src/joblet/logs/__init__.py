"""The output of jobs: files with byte cursors and the hub that feeds their followers."""

from joblet.logs.hub import LogHub

__all__ = ["LogHub"]
