"""Sphinx: the pages of the project as a site, by scripts/docs.sh.

The source is the whole tree, so that a link between two pages is the same here and in the
repository.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

root = Path(os.environ["DOCS_SOURCE"])
project = "session_manager"
release = re.findall(
    r"^default_version = '(.*)'", (root / "session_manager.control").read_text(), re.MULTILINE
)[0]
version = release

extensions = ["myst_parser"]
include_patterns = [
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "RELEASING.md",
    "docs/*.md",
    "clients/*/README.md",
]
exclude_patterns = ["build", "**/node_modules"]
root_doc = "README"
# as GitHub makes anchors of headings
myst_heading_anchors = 4
nitpicky = True
# what is shown beside SQL, such as psql's answers, is no SQL
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
templates_path = ["templates"]
html_context = {
    "versions": os.environ["DOCS_VERSIONS"].split(),
    "this_version": os.environ["DOCS_VERSION"],
}
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/versions.html",
        "sidebar/scroll-end.html",
    ]
}

# The pages by what they are for; for a page that is missing here Sphinx warns, and so fails.
contents = {
    "Start": [
        "docs/which-session-store",
        "docs/django",
        "docs/react",
        "docs/migrating-to-session_manager",
    ],
    "Operate": [
        "docs/deployment",
        "docs/keys",
        "docs/monitoring",
        "docs/scaling",
        "docs/sharding",
        "docs/router",
    ],
    "Look up": [
        "docs/reference",
        "docs/device-bound",
        "docs/cache-protocol",
        "docs/benchmarks",
        "docs/compliance",
        "SECURITY",
    ],
    "Project": [
        "CHANGELOG",
        "CONTRIBUTING",
        "RELEASING",
        "clients/django/README",
        "clients/react/README",
    ],
}


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """The README has no table of contents of the site: GitHub would show it as code."""
    if page == root_doc:
        for caption, pages in contents.items():
            names = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
