"""The attempts, a module a category. They are sent into jobs as source: see joblet.escape.program."""
