"""The ASGI application of docs/django.md, "WebSockets", as it is written there."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from .pages import run, samples

_consumer, _application = samples("WebSockets")
# The page has them in two files of a project.
application = run(_consumer + "\n" + _application.replace("from feed.consumers import Feed\n", ""))[
    "application"
]
