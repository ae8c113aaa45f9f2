"""The ASGI application of docs/django.md, "WebSockets", as it is written there."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from session_manager import channels

from .pages import run, samples

# No test is about the look once a minute: what hangs up is a notification, or a time that is over.
channels.RECHECK = 600.0

_consumer, _application = samples("WebSockets")
# The page has them in two files of a project.
application = run(_consumer + "\n" + _application.replace("from feed.consumers import Feed\n", ""))[
    "application"
]
