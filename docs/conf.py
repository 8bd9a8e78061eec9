"""Sphinx configuration of the documentation site: `make docs`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extension"), str(HERE.parent)]

_project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Lookalike"
author = "the authors of Lookalike"
copyright = author
version = release = _project["version"]

extensions = ["myst_parser", "from_code", "llms_txt"]
exclude_patterns = ["_build", "_extension"]
html_theme = "furo"
html_title = f"Lookalike {release}"
html_extra_path = ["openapi.json"]
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# Blocks of commands with results are no Python; a console prompt is.
highlight_language = "none"
nitpicky = True
