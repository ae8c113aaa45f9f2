"""How far a command has come: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from tqdm import tqdm

#: Seconds between two lines where there is no terminal.
INTERVAL = 10.0


class Progress:
    """``with Progress(total, "rows", say) as progress: progress.advance(n)``."""

    def __init__(self, total: int, unit: str, say: Callable[[str], None]) -> None:
        self.total = total
        self.unit = unit
        self.say = say
        self.count = 0
        self.started = self.said = time.monotonic()
        self.bar = tqdm(
            total=total,
            unit=f" {unit}",
            file=sys.stderr,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    def advance(self, count: int) -> None:
        self.count += count
        self.bar.update(count)
        now = time.monotonic()
        if self.bar.disable and now - self.said >= INTERVAL:
            self.said = now
            rate = self.count / (now - self.started)
            self.say(f"{self.count} of {self.total} {self.unit}, {rate:.0f} a second")

    def aside(self) -> AbstractContextManager[None]:
        """While something else is written to the terminal."""
        return tqdm.external_write_mode(file=sys.stdout)
