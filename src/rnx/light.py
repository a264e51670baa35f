"""What the client imports, without what that would import and never use."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import cast


def spare_pydantic() -> None:
    """Import betterproto2, and not pydantic with it: before joblet.client.

    betterproto2 imports pydantic where that is there, only to ask it of messages whether they are its own. None of ours
    are. In a program of somebody else's they may be, which is why the library itself does not do this.
    """
    absent = "pydantic"
    if absent in sys.modules or "betterproto2" in sys.modules:
        return
    modules = cast("dict[str, object]", sys.modules)
    modules[absent] = None  # an import of it fails now: importlib's documentation of sys.modules
    try:
        import_module("betterproto2")
    finally:
        del modules[absent]
