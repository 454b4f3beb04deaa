"""Sphinx configuration of the manual (`make docs`)."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import mdsim  # noqa: E402 - found through the line above

project = "mdsim"
author = copyright = "The mdsim developers"
version = release = mdsim.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "config_reference",
    "docstrings",
    "mathml",
    "modules",
    "notebooks",
    "source_pages",
]
exclude_patterns = ["_ext", "conf.py", "examples", "notebooks/outputs"]
default_role = "code"  # docstrings write names in single backticks
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

nb_custom_formats = {".py": ["notebooks.executed", {}, False]}
nb_execution_mode = "off"  # done by `notebooks.executed`, once for the manual and the tests
nb_merge_streams = True

autodoc_mock_imports = ["torch_sim", "metatomic", "metatensor", "mace"]  # which the manual does without
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"special-members": "__call__"}  # what observables and criteria are
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "notes"), ("References", "notes"), ("Attributes", "params_style")]

html_theme = "furo"
html_title = f"mdsim {version}"
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["mdsim.css"]
