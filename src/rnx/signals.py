"""The signals that a stop may begin with, by name."""

SIGNALS = ("TERM", "INT", "HUP", "QUIT", "ABRT", "USR1", "USR2", "ALRM", "WINCH", "KILL")
"""what completion offers of them; the server has the say"""
