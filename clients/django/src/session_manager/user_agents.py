"""A user agent in a few words.  For people to recognise a device by, and for nothing else."""

from __future__ import annotations

import re

from django.utils.translation import gettext as _

# In this order: most browsers name others as well.
_BROWSERS = [
    (re.compile(r"\bEdg(?:e|A|iOS)?/"), "Edge"),
    (re.compile(r"\bOPR/"), "Opera"),
    (re.compile(r"\b(?:Firefox|FxiOS)/"), "Firefox"),
    (re.compile(r"\b(?:Chrome|CriOS|HeadlessChrome)/"), "Chrome"),
    (re.compile(r"\bVersion/\S+ .*Safari/"), "Safari"),
    (re.compile(r"^curl/"), "curl"),
]
_SYSTEMS = [
    (re.compile(r"\biPhone\b"), "iPhone"),
    (re.compile(r"\biPad\b"), "iPad"),
    (re.compile(r"\bAndroid\b"), "Android"),
    (re.compile(r"\bWindows\b"), "Windows"),
    (re.compile(r"\bMac OS X\b"), "macOS"),
    (re.compile(r"\bCrOS\b"), "ChromeOS"),
    (re.compile(r"\bLinux\b"), "Linux"),
]


def describe_user_agent(text: str | None) -> str:
    """As "Firefox on Linux".  Nothing of the text itself, which anybody may have written."""
    browser = _find(_BROWSERS, text or "")
    system = _find(_SYSTEMS, text or "")
    if browser and system:
        return _("%(browser)s on %(system)s") % {"browser": browser, "system": system}
    return browser or system or _("an unknown device")


def _find(table: list[tuple[re.Pattern[str], str]], text: str) -> str | None:
    return next((name for pattern, name in table if pattern.search(text)), None)
