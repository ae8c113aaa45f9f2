"""Settings are read once, and again when they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from session_manager import conf
from session_manager.conf import settings


def test_a_change_while_another_thread_reads(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = conf.load_settings

    def overtaken() -> Any:
        loaded = load()
        monkeypatch.undo()
        configure(RETRY_AFTER=7)
        return loaded

    configure(RETRY_AFTER=6)
    monkeypatch.setattr(conf, "load_settings", overtaken)
    assert settings.RETRY_AFTER == 6
    assert settings.RETRY_AFTER == 7
