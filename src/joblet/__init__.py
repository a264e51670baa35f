"""joblet: run any command on a Linux host as an isolated, limited, observable job."""

__version__ = "0.1.0"
