"""Workflows: a file and the plan that it says, what may run when, and what has come of it. No I/O."""
