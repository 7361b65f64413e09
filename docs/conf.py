"""How Sphinx makes a site of these pages and of the package's docstrings; the site needs no network."""

from importlib import metadata

project = "edgestill"
release = metadata.version("edgestill")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "alabaster"
html_theme_options = {"description": "Small language models, proven on the device they ship to.", "page_width": "72rem"}
html_show_copyright = False
myst_heading_anchors = 4
default_role = "code"  # docstrings write `names` between single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
toc_object_entries = False
