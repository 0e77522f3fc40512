"""Settings of the documentation site (Sphinx)."""

import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import skmvae

project = "skmvae"
author = "The skmvae developers"
copyright = "The skmvae developers"
version = release = skmvae.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/**/*.ipynb", "auto_examples/**/*.py"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_typehints = "none"
default_role = "literal"
# Names of other packages: to link them, Sphinx would have to fetch their inventories.
nitpick_ignore_regex = [(r"py:.*", r"(sklearn|torch|numpy|matplotlib)\..*")]

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = f"skmvae {version}"
html_favicon = "_static/mark.svg"
html_static_path = ["_static"]
html_css_files = ["skmvae.css"]
html_show_sourcelink = False
# An index of modules would link to what api.rst declares without index.
html_domain_indices = False
toc_object_entries_show_parents = "hide"
# The pages of the section, which the theme leaves out where there are none.
html_sidebars = {"**": ["sidebar-nav-bs"]}
html_theme_options = {
    "logo": {"text": "skmvae", "image_light": "mark.svg", "image_dark": "mark.svg"},
    "navbar_start": ["navbar-logo", "version"],
    "navbar_align": "left",
    "navbar_end": ["source", "theme-switcher"],
    "primary_sidebar_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}

# Of each of the two examples that run at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Gallery scripts run without a screen.
warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")
sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "ExampleTitleSortKey",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "parallel": 2,
    "abort_on_example_error": True,
    "doc_module": ("skmvae",),
}
