"""How Sphinx builds the documentation: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "operator"))

from runkeys._version import __version__  # noqa: E402

project = "Runkeys"
copyright = "the authors of Runkeys"  # noqa: A001 -- the name that Sphinx reads
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
# The pages link to each other across the whole checkout, as they do where the repository is read.
include_patterns = [
    "docs/*.md",
    "docs/**/*.md",
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "CHANGELOG.md",
    "examples/*/README.md",
    "helm/runkeys/README.md",
    "deploy/README.md",
    "policies/README.md",
]
root_doc = "docs/index"
html_theme = "furo"
html_title = f"Runkeys {version}"
html_show_copyright = html_show_sphinx = False
myst_heading_anchors = 4
myst_links_external_new_tab = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
