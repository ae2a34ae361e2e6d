"""Sphinx settings: MyST Markdown, the furo theme, and nothing that needs the network."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs" / "extensions"))

project = "hybrid-zoo"
author = "The hybrid-zoo authors"
copyright = "The hybrid-zoo authors, Apache-2.0"
release = version = runpy.run_path(str(ROOT / "zoo" / "base" / "version.py"))["__version__"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "accessible_pages",
    "catalogue_pages",
    "reference_tables",
]
exclude_patterns = ["_build", "extensions"]
default_role = "literal"  # docstrings write `names` as Markdown does

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests run the notebook; its outputs are stored

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = f"hybrid-zoo {release}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_js_files = ["pages.js"]
html_extra_path = ["../zoo/catalogue/registry.schema.json"]  # an address that a registry file can name

# By hand, with a network: python -m sphinx -b linkcheck docs docs/_build/linkcheck
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_workers = 4
linkcheck_ignore = [r"^http://127\.0\.0\.1"]
