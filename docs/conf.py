"""Sphinx settings: MyST Markdown, the furo theme, and nothing that needs the network."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

project = "hybrid-zoo"
author = "The hybrid-zoo authors"
copyright = "The hybrid-zoo authors, Apache-2.0"
release = version = runpy.run_path(str(ROOT / "zoo" / "version.py"))["__version__"]

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"hybrid-zoo {release}"
