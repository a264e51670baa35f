"""Sphinx's settings: `nox -s docs` builds site/ with every warning an error, a broken link among them.

Sphinx and not MkDocs, which has had no release since 2024, and whose Material theme takes no more features. The
reference is made of the source at each build (docs/generate.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402

from joblet import __version__  # noqa: E402

generate.write_reference(HERE / "reference")

project = "joblet"
author = "the joblet authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["generator"]
default_role = "literal"
nitpicky = False

myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"

html_theme = "furo"
html_title = f"joblet {release}"
html_show_sphinx = False
html_copy_source = False
