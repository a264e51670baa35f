"""Jobs on this host."""

from joblet.executor.local.executor import LocalExecutor, Settings
from joblet.executor.local.host import ceiling

__all__ = ["LocalExecutor", "Settings", "ceiling"]
