"""`python -m joblet` is the `joblet` command."""

from joblet.cli import main

main()
