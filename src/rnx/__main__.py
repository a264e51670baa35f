"""`python -m rnx`."""

from rnx.main import main

main()
