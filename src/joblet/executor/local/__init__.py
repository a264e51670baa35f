"""Jobs on this host."""

from joblet.executor.local.executor import LocalExecutor, Settings
from joblet.executor.local.host import ceiling
from joblet.executor.local.spec import View

__all__ = ["LocalExecutor", "Settings", "View", "ceiling"]
