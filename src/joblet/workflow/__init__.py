"""Workflows: a file's jobs as a plan, and the engine that runs it."""
