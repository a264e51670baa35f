"""rnx: the command line of joblet's clients."""
