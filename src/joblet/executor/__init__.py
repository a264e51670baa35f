"""The seam to the machine that runs jobs."""
