"""What the admin's page Overview shows: numbers of events as charts, and the state of the servers.

It asks for no more than the page has room for: numbers by the hour, which the extension keeps, a
few events, and an estimate.  A chart is drawn on the server, as SVG without a script or a style of
its own, so that the strictest Content-Security-Policy allows it; beside it stands its table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .administration import info
from .local_time import local_time
from .services import session_service
from .store.database import call, function
from .types import Activity, Event

HOURS = 48
DAYS = 30
#: Critical events shown.
EVENTS = 10
#: Reasons of which each has a line; those beyond are added up.
REASONS = 8
#: How far behind the count may be before the page says so.
BEHIND = timedelta(minutes=2)

# What is counted, by the events that count for it.
MEASURES = {
    "logins": (gettext_lazy("Logins"), ("created",)),
    "refreshes": (gettext_lazy("Refreshes"), ("refreshed", "rotated")),
    "ends": (
        gettext_lazy("Ended sessions"),
        ("invalidated", "evicted", "expired", "idle", "actor_ended"),
    ),
    "refused": (gettext_lazy("Refused tokens"), ("rejected", "bind_failed")),
    "replays": (gettext_lazy("Replayed tokens"), ("token_reused",)),
}

# In units of a chart's viewBox, which is as wide as a phone shows it.
WIDTH, HEIGHT = 360, 132
LEFT, RIGHT, TOP, BOTTOM = 40, 4, 8, 20


@dataclass(frozen=True)
class Bar:
    """A number of a chart, with where it is drawn."""

    label: str
    number: int
    #: Of the bar that is not over yet.
    unfinished: bool
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Tick:
    """A label of an axis, and where it stands."""

    label: str
    at: str


@dataclass(frozen=True)
class Chart:
    """Bars over time."""

    id: str
    title: str
    description: str
    unit: str
    bars: Sequence[Bar]
    times: Sequence[Tick]
    numbers: Sequence[Tick]

    width, height, left, right = WIDTH, HEIGHT, LEFT, WIDTH - RIGHT
    base = HEIGHT - BOTTOM
    #: Where the labels of the axes stand.
    time_y, number_x = HEIGHT - 4, LEFT - 5


@dataclass(frozen=True)
class Measure:
    """What is counted: in the last day, and by the hour and the day."""

    id: str
    title: str
    last_day: int
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Reason:
    """Why sessions ended, how many, and how much that is of the most frequent, of 100."""

    name: str
    last_day: int
    all: int
    share: str


@dataclass(frozen=True)
class Line:
    """A line of session_info, and whether somebody should look at it."""

    key: str
    value: str
    attention: bool


@dataclass(frozen=True)
class Overview:
    """All of the page."""

    tenant_id: str | None
    live: int
    measures: Sequence[Measure]
    reasons: Sequence[Reason]
    events: Sequence[Event]
    #: What the server says of itself; None if the role may not ask.
    state: Sequence[Line] | None
    #: Up to when events are counted, if that is not up to now.
    counted_until: datetime | None

    @property
    def to_look_at(self) -> int:
        """How many lines of the state somebody should look at."""
        return sum(line.attention for line in self.state or ())


def overview(tenant_id: str | None = None) -> Overview:
    """Ask the database, for a tenant's events or those of all."""
    now = datetime.now(timezone.utc)
    hours = [
        now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=n)
        for n in reversed(range(HOURS))
    ]
    today = local_time(now).date()
    days = [today - timedelta(days=n) for n in reversed(range(DAYS))]
    # A day more than there are, as the first one may begin in another of UTC.
    counted = session_service.activity(since=now - timedelta(days=DAYS + 1), tenant_id=tenant_id)
    behind = max((one.until for one in counted), default=now)

    measures = []
    for name, (title, events) in MEASURES.items():
        by_hour: Counter[datetime] = Counter()
        by_day: Counter[date] = Counter()
        for one in counted:
            if one.event in events:
                by_hour[one.hour] += one.events
        for hour, number in by_hour.items():
            by_day[local_time(hour).date()] += number
        charts = (
            chart(
                f"{name}-hours",
                _("%(what)s by the hour, last %(number)d hours") % {"what": title, "number": HOURS},
                _("hour"),
                [(date_format(local_time(hour), "m-d H:i"), by_hour[hour]) for hour in hours],
                step=12,
            ),
            chart(
                f"{name}-days",
                _("%(what)s by the day, last %(number)d days") % {"what": title, "number": DAYS},
                _("day"),
                [(date_format(day, "m-d"), by_day[day]) for day in days],
                step=7,
            ),
        )
        last_day = sum(by_hour[hour] for hour in hours[-24:])
        measures.append(Measure(name, str(title), last_day, charts))

    return Overview(
        tenant_id=tenant_id,
        live=session_service.estimate_active(),
        measures=measures,
        reasons=reasons(counted, hours[-24]),
        events=session_service.critical_events(max_rows=EVENTS, tenant_id=tenant_id),
        state=state(),
        counted_until=local_time(behind) if now - behind > BEHIND else None,
    )


def chart(
    chart_id: str, title: str, unit: str, numbers: Sequence[tuple[str, int]], step: int
) -> Chart:
    """Draw numbers, the last of which is not over yet; a label at every ``step`` from the end."""
    highest = max(number for _label, number in numbers)
    top = ceiling(highest)
    high = HEIGHT - TOP - BOTTOM
    slot = (WIDTH - LEFT - RIGHT) / len(numbers)
    bars, times = [], []
    for n, (label, number) in enumerate(numbers):
        # What is not nothing can be seen.
        tall = max(high * number / top, 1.5) if number else 0
        bars.append(
            Bar(
                label=label,
                number=number,
                unfinished=n == len(numbers) - 1,
                x=_units(LEFT + slot * n + slot * 0.1),
                y=_units(TOP + high - tall),
                width=_units(slot * 0.8),
                height=_units(tall),
            )
        )
        # It ends at its bar, and has a step of room.
        if (len(numbers) - 1 - n) % step == 0 and n >= step - 1:
            times.append(Tick(label, _units(LEFT + slot * (n + 0.9))))
    total = sum(number for _label, number in numbers)
    return Chart(
        id=chart_id,
        title=title,
        description=_("%(total)s in all; the highest number is %(highest)s.")
        % {"total": f"{total:,}", "highest": f"{highest:,}"},
        unit=unit,
        bars=bars,
        times=times,
        numbers=[
            Tick(short(value), _units(TOP + high - high * value / top))
            for value in ((0, top // 2, top) if top % 2 == 0 else (0, top))
        ],
    )


def ceiling(number: int) -> int:
    """The end of an axis: 1, 2, 4, 6, 8 or 10 times a power of ten, not below the number."""
    power = 1
    while power * 10 < number:
        power *= 10
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= number)


def short(number: int) -> str:
    """A number of an axis in few letters."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return str(number)


def _units(value: float) -> str:
    """A length as SVG wants it, whatever the language's decimal point."""
    return f"{value:.1f}"


def reasons(counted: Iterable[Activity], last_day_from: datetime) -> list[Reason]:
    """Why sessions have ended, the most frequent first."""
    last_day: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for one in counted:
        if one.event in MEASURES["ends"][1]:
            # "evicted" and what cleanup found say it themselves
            name = one.reason or one.event
            total[name] += one.events
            if one.hour >= last_day_from:
                last_day[name] += one.events
    ordered = [name for name, _number in sorted(total.items(), key=lambda r: (-r[1], r[0]))]
    if len(ordered) > REASONS:
        rest = ordered[REASONS - 1 :]
        ordered = [*ordered[: REASONS - 1], _("others")]
        for numbers in (last_day, total):
            numbers[ordered[-1]] = sum(numbers.pop(name, 0) for name in rest)
    most = max(total.values(), default=1)
    return [
        Reason(name, last_day[name], total[name], _units(100 * total[name] / most))
        for name in ordered
    ]


def state() -> list[Line] | None:
    """session_info() with marks; None where the role has neither ``monitor`` nor ``admin``."""
    (row,) = call(
        "SELECT pg_catalog.has_function_privilege(%s, 'execute') AS may",
        [f"{function('session_info')}()"],
    )
    if not row["may"]:
        return None
    return [Line(key, value or "", attention(key, value or "")) for key, value in info().items()]


def attention(key: str, value: str) -> bool:
    """Whether a line of session_info says that something is not as it should be.

    On a router (docs/router.md) a line can name several shards, and is judged by what it contains.
    """
    good = {
        "key_file": ("loaded",),
        "keys_unavailable": ("0",),
        "clock": ("trusted", "not watched"),
        "cache_warnings": ("none",),
    }
    bad = {
        "active_key": ("none:", "not in the key file", "has another key"),
        "workers": ("off", "has waited"),
        "resealing": ("no worker",),
        "cache": ("off:",),
        "cache_server": ("not connected",),
        "cache_epoch": ("nothing is served",),
    }
    if key.startswith("errors_"):
        return not value.startswith(("none", "not recorded"))
    if key in good:
        return not value.startswith(good[key])
    return any(sign in value for sign in bad.get(key, ()))
