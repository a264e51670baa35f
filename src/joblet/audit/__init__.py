"""The audit log: one line a decision, each chained to the one before it, so that no line can be changed unseen.

`chain` is the form of a line, `head` what is known apart of the last one, `trail` writes, `recovery` begins where an
earlier server ended, `verify` looks for what was changed, `query` finds lines. None of them knows what a call is.
"""

from __future__ import annotations

from joblet.audit.trail import Found, Trail, TrailError

__all__ = ["Found", "Trail", "TrailError"]
