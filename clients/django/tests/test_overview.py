"""The admin's page Overview: what it counts, who may see it, and how it looks in a real browser."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.http import HttpRequest, HttpResponse
from django.test import Client, modify_settings
from django.urls import reverse

from session_manager.overview import REASONS, attention, ceiling, overview, reasons, short
from session_manager.services import session_service
from session_manager.types import Activity

from .conftest import Superuser
from .test_admin import HOSTILE, chromium, staff

pytestmark = pytest.mark.django_db

PAGE = "/admin/session_manager/sessionoverview/"
SEE = "view_sessionoverview"
#: Nothing but the site's own files.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'"
)


@pytest.fixture
def watcher(db: None) -> Client:
    return staff(SEE)


def text_of(page: str) -> str:
    """What a page says, without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


class TestPermissions:
    def test_of_its_own(self) -> None:
        client = staff("view_usersession", "view_sessionevent", "revoke_usersession")
        assert client.get(PAGE).status_code == 403
        assert PAGE not in client.get("/admin/").content.decode()
        assert Client().get(PAGE).status_code == 302

    def test_with_it(self, watcher: Client) -> None:
        assert watcher.get(PAGE).status_code == 200
        assert PAGE in watcher.get("/admin/").content.decode()

    def test_nothing_else(self, watcher: Client) -> None:
        for path in ("add/", "1/change/", "1/delete/", "1/history/"):
            assert watcher.get(f"{PAGE}{path}").status_code == 404
        assert watcher.get("/admin/session_manager/usersession/").status_code == 403

    def test_links_for_who_may_follow(
        self, watcher: Client, user_id: str, database_setting: Any
    ) -> None:
        database_setting("rotation_grace", "0")
        created = session_service.create(user_id)
        replay(created.token)
        link = reverse("admin:session_manager_usersession_change", args=[created.id])
        assert link not in watcher.get(PAGE).content.decode()
        root = Client()
        root.force_login(get_user_model().objects.create_superuser("root"))
        assert link in root.get(PAGE).content.decode()


def replay(token: str) -> None:
    """Use a token after its successor, as a thief does."""
    successor = session_service.refresh(token, rotate=True)
    assert session_service.get(successor.token) is not None
    assert session_service.refresh(token).status == "reused"


class TestNumbers:
    def test_of_all_and_of_a_tenant(self, watcher: Client, user_id: str) -> None:
        before = {m.id: m.last_day for m in overview().measures}
        tenant = f"tenant of {user_id}"
        mine = [session_service.create(user_id, tenant_id=tenant) for _ in range(3)]
        session_service.create(user_id)
        session_service.refresh(mine[0].token)
        session_service.refresh(mine[1].token, rotate=True)
        session_service.invalidate(mine[2].token, reason="of the test")
        after = {m.id: m.last_day for m in overview().measures}
        assert {name: after[name] - before[name] for name in after} == {
            "logins": 4,
            "refreshes": 2,
            "ends": 1,
            "refused": 0,
            "replays": 0,
        }
        page = overview(tenant)
        assert [m.last_day for m in page.measures] == [3, 2, 1, 0, 0]
        for measure in page.measures:
            for chart in measure.charts:
                assert sum(bar.number for bar in chart.bars) == measure.last_day
                assert chart.bars[-1].unfinished
                assert chart.bars[-1].number == measure.last_day or datetime.now().minute < 2
        assert [(r.name, r.last_day, r.all) for r in page.reasons] == [("of the test", 1, 1)]
        shown = text_of(watcher.get(PAGE, {"tenant": tenant}).content.decode())
        assert "Logins 3 last 24 hours" in shown
        assert "of the test 1 1" in shown
        assert "Logins 0 last 24 hours" in text_of(
            watcher.get(PAGE, {"tenant": "nobody"}).content.decode()
        )

    def test_refused_and_replayed(self, user_id: str, database_setting: Any) -> None:
        database_setting("rotation_grace", "0")
        tenant = f"tenant of {user_id}"
        created = session_service.create(user_id, tenant_id=tenant)
        replay(created.token)
        page = overview(tenant)
        measures = {m.id: m for m in page.measures}
        assert measures["replays"].last_day == 1
        assert [(e.event, e.user_id) for e in page.events] == [("token_reused", user_id)]
        assert "token_reused" in [reason.name for reason in page.reasons]

    @pytest.mark.parametrize("use_tz", [True, False])
    def test_days_are_local(self, settings: Any, user_id: str, use_tz: bool) -> None:
        settings.USE_TZ, settings.TIME_ZONE = use_tz, "Pacific/Kiritimati"
        tenant = f"tenant of {user_id}"
        local = datetime.now(timezone.utc) + timedelta(hours=14)
        session_service.create(user_id, tenant_id=tenant)
        hours, days = overview(tenant).measures[0].charts
        assert days.bars[-1].number == 1
        if use_tz:
            assert days.bars[-1].label == f"{local:%m-%d}"
            assert hours.bars[-1].label == f"{local:%m-%d %H}:00"

    def test_hostile_names(self, watcher: Client, database_setting: Any) -> None:
        database_setting("rotation_grace", "0")
        session_service.create(HOSTILE, tenant_id=HOSTILE)
        created = session_service.create(HOSTILE, tenant_id=HOSTILE)
        session_service.invalidate(created.token, reason="<script>alert(1)</script>")
        replay(session_service.create(HOSTILE, tenant_id=HOSTILE).token)
        page = watcher.get(PAGE, {"tenant": HOSTILE}).content.decode()
        assert "&lt;script&gt;alert" in page
        assert "<script>alert" not in page

    @pytest.mark.parametrize("language", ["en", "de", "fr"])
    def test_drawings_do_not_depend_on_the_language(
        self, watcher: Client, settings: Any, user_id: str, language: str
    ) -> None:
        settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR = language, True
        session_service.create(user_id)
        page = watcher.get(PAGE).content.decode()
        places = re.findall(r'<(?:rect|line|text)[^>]* (?:x|y|x1|height|width)="([^"]*)"', page)
        assert len(places) > 20
        assert all(re.fullmatch(r"\d+(\.\d)?", place) for place in places)

    def test_a_tenant_that_is_none(self, watcher: Client) -> None:
        assert watcher.get(PAGE, {"tenant": "x" * 600}).status_code == 400
        assert watcher.get(PAGE, {"tenant": "a\0b"}).status_code == 400
        assert watcher.get(PAGE, {"tenant": ""}).status_code == 200

    def test_maintenance_that_is_behind(
        self, watcher: Client, user_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session_service.create(user_id)
        assert "maintenance is behind" not in watcher.get(PAGE).content.decode()
        now = datetime.now(timezone.utc)
        hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
        found = [Activity(hour, hour + timedelta(minutes=7), "created", None, 250_000)]
        monkeypatch.setattr(type(session_service), "activity", lambda *args, **named: found)
        shown = text_of(watcher.get(PAGE).content.decode())
        local = hour.astimezone(ZoneInfo("Europe/Berlin"))
        assert f"counted up to {local:%Y-%m-%d %H}:07: maintenance is behind" in shown

    def test_number_of_queries(
        self, watcher: Client, user_id: str, django_assert_max_num_queries: Any
    ) -> None:
        for _ in range(20):
            session_service.create(user_id)
        with django_assert_max_num_queries(10):
            watcher.get(PAGE)


class TestState:
    def test_without_the_right(self, watcher: Client) -> None:
        shown = text_of(watcher.get(PAGE).content.decode())
        assert "session_grant(" in shown
        assert "monitor" in shown
        assert "last_pass" not in shown

    def test_with_it(self, watcher: Client) -> None:
        with granted("monitor"):
            shown = text_of(watcher.get(PAGE).content.decode())
        assert "key_file loaded" in shown
        assert "last_pass" in shown
        assert "session_grant(" not in shown

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("workers", "on", False),
            ("workers", "on: pid 7 is at work", False),
            ("workers", "off: the launcher is not running", True),
            ("workers", "on: a pass has waited for a free background worker for 9 s", True),
            ("errors_sweep", "none", False),
            ("errors_sweep", "2, the last at 2026-11-30: 55P03 no", True),
            ("active_key", "1", False),
            ("active_key", "none: session_create fails", True),
            ("active_key", "1: not in the key file", True),
            ("keys_unavailable", "0", False),
            ("keys_unavailable", "1", True),
            ("cache", "off", False),
            ("cache", "off: no background worker is free for it", True),
            ("cache_server", "connected since 2026", False),
            ("cache_server", "not connected since 2026: refused", True),
            ("version", "1.0", False),
        ],
    )
    def test_attention(self, key: str, value: str, expected: bool) -> None:
        assert attention(key, value) is expected


@contextmanager
def granted(bundle: str) -> Iterator[None]:
    """Let the application's role have a bundle for a while."""
    from django.db import connection

    role = connection.settings_dict["USER"]
    with Superuser() as superuser:
        superuser.execute("SELECT session_grant(%s::text::regrole, %s)", [role, bundle])
        try:
            yield
        finally:
            superuser.execute("SELECT session_revoke(%s::text::regrole, %s)", [role, bundle])
            # What both have went too.
            for other in ("app", "reader"):
                superuser.execute("SELECT session_grant(%s::text::regrole, %s)", [role, other])


class TestDrawing:
    @pytest.mark.parametrize(
        ("number", "end"),
        [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 4),
            (9, 10),
            (10, 10),
            (11, 20),
            (47, 60),
            (61, 80),
            (999, 1000),
        ],
    )
    def test_axis(self, number: int, end: int) -> None:
        assert ceiling(number) == end

    def test_short_numbers(self) -> None:
        assert [short(n) for n in (0, 999, 1000, 2500, 10**7, 2 * 10**9)] == [
            "0",
            "999",
            "1k",
            "2.5k",
            "10M",
            "2G",
        ]

    def test_many_reasons_are_added_up(self) -> None:
        hour = datetime(2026, 1, 1, tzinfo=timezone.utc)
        counted = [
            Activity(hour, hour, "invalidated", f"reason {n:02}", 100 - n) for n in range(20)
        ]
        found = reasons(counted, hour)
        assert len(found) == REASONS
        assert found[0].name == "reason 00"
        assert found[-1].name == "others"
        assert sum(r.all for r in found) == sum(r.last_day for r in found) == sum(range(81, 101))
        assert float(found[0].share) <= 100


def strict_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """Middleware: the strictest Content-Security-Policy that a site of forms can have."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return answer


# A month of an application with some hundred users an hour, and an attack last night.
STORY = """
INSERT INTO session_events (at, session_id, user_id, tenant_id, event, ip, detail)
SELECT at, gen_random_uuid(), 'user-' || n % 97, CASE n % 3 WHEN 0 THEN 'globex' ELSE 'acme' END,
    event, '203.0.113.7', detail
FROM (
    SELECT h.at + n * interval '3 s' AS at, n, e.event, e.detail
    FROM (
        SELECT date_trunc('hour', now()) - h * interval '1 hour' AS at, h,
            greatest(2, 60 + 50 * sin((24 - h) * pi() / 12)
                - CASE WHEN h / 24 % 7 IN (1, 2) THEN 45 ELSE 0 END) AS busy
        FROM generate_series(1, 720) AS h
    ) AS h, (VALUES
        ('created', 1.0, NULL::jsonb),
        ('refreshed', 2.6, NULL),
        ('rotated', 0.5, NULL),
        ('expired', 0.3, NULL),
        ('invalidated', 0.4, '{"reason": "logout"}'),
        ('invalidated', 0.1, '{"reason": "logout_all"}'),
        ('invalidated', 0.05, '{"reason": "password_changed"}'),
        ('evicted', 0.06, '{"reason": "evicted"}'),
        ('rejected', 0.04, '{"cause": "unknown"}')
    ) AS e (event, share, detail), generate_series(1, (h.busy * e.share)::int) AS n
    UNION ALL
    SELECT now() - interval '14 hours' + n * interval '9 s', n, 'rejected',
        '{"cause": "mismatch", "suppressed": 2}'
    FROM generate_series(1, 400) AS n
    UNION ALL
    SELECT now() - interval '13 hours' + n * interval '11 min', n, 'token_reused', NULL
    FROM generate_series(1, 4) AS n
    UNION ALL
    SELECT now() - interval '9 days' - n * interval '4 min', n, 'token_reused', NULL
    FROM generate_series(1, 2) AS n
) AS story
"""


@modify_settings(MIDDLEWARE={"prepend": "tests.test_overview.strict_policy"})
@pytest.mark.browser
@pytest.mark.skipif(
    chromium() is None and "SM_TEST_NO_SKIP" not in os.environ, reason="no chromium"
)
class TestInABrowser(StaticLiveServerTestCase):
    """Looks at the page as people do: on a phone and a desktop, in the light and in the dark."""

    def setUp(self) -> None:
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        get_user_model().objects.create_superuser("admin", "admin@example.com", "secret")
        with Superuser() as superuser:
            superuser.execute(STORY)
        for n in range(140):
            session_service.create(f"user-{n}", tenant_id=("acme", "globex")[n % 2])

    def tearDown(self) -> None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]

    def test_everything(self) -> None:
        from playwright.sync_api import expect, sync_playwright

        failures: list[str] = []
        with granted("monitor"), sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
            )
            state = None
            for device, width, height in (("desktop", 1280, 900), ("phone", 390, 844)):
                for theme in ("light", "dark"):
                    context = browser.new_context(
                        viewport={"width": width, "height": height},
                        color_scheme=theme,
                        storage_state=state,
                    )
                    page = context.new_page()
                    page.on("pageerror", lambda error: failures.append(str(error)))
                    page.on(
                        "console",
                        lambda m: failures.append(m.text) if m.type == "error" else None,
                    )
                    if state is None:
                        page.goto(f"{self.live_server_url}/admin/")
                        page.fill("#id_username", "admin")
                        page.fill("#id_password", "secret")
                        with page.expect_navigation():
                            page.click("input[type=submit]")
                        state = context.storage_state()
                        failures.clear()
                    response = page.goto(f"{self.live_server_url}{PAGE}")
                    assert response is not None
                    assert response.headers["content-security-policy"] == POLICY
                    expect(page.locator(".sm-overview h1, #content h1")).to_have_text("Overview")
                    expect(page.get_by_role("img")).to_have_count(10)
                    self.fits(page, width)
                    self.can_be_read(page)
                    self.picture(page, f"overview-{device}-{theme}")
                    context.close()

            context = browser.new_context(
                viewport={"width": 1280, "height": 900}, storage_state=state
            )
            page = context.new_page()
            page.goto(f"{self.live_server_url}{PAGE}")
            self.by_keyboard(page)
            page.fill("#id_tenant", "globex")
            with page.expect_navigation():
                page.press("#id_tenant", "Enter")
            assert page.url.endswith("?tenant=globex")
            expect(page.locator("#id_tenant")).to_have_value("globex")
            of_globex = self.tile(page, "logins")
            with page.expect_navigation():
                page.get_by_role("link", name="All tenants").click()
            assert 0 < of_globex < self.tile(page, "logins")
            browser.close()
        assert failures == []

    def tile(self, page: Any, name: str) -> int:
        return int(page.locator(f"#sm-{name} dd").first.inner_text().replace(",", ""))

    def fits(self, page: Any, width: int) -> None:
        """Nothing has to be scrolled sideways, and nothing is cut off."""
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        for chart in page.locator(".sm-chart svg").all():
            labels = [label.bounding_box() for label in chart.locator("text").all()]
            times = [label for label in labels if label["y"] == labels[-1]["y"]]
            assert len(times) > 2
            for left, right in itertools.pairwise(times):
                assert left["x"] + left["width"] < right["x"]
            box = chart.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["width"] >= 300

    def can_be_read(self, page: Any) -> None:
        """Contrast, by WCAG 2: 3 for what is drawn and 4.5 for text."""
        ratio = """(selector, property) => {
            const parse = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => {
                v /= 255;
                return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            });
            const light = c => {
                const [r, g, b] = parse(c);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const element = document.querySelector(selector);
            const one = light(getComputedStyle(element)[property]);
            let ground = element;
            while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)")
                ground = ground.parentElement;
            const other = light(getComputedStyle(ground).backgroundColor);
            return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        }"""
        for selector, name, least in (
            (".sm-bar:not(.sm-unfinished)", "fill", 3),
            (".sm-unfinished", "stroke", 3),
            (".sm-tick", "fill", 4.5),
            (".sm-chart figcaption", "color", 4.5),
            (".sm-chart summary", "color", 4.5),
            (".sm-tile dd.sm-quiet", "color", 4.5),
            (".sm-measure h2", "color", 4.5),
            (".sm-event strong", "color", 4.5),
            (".sm-event time", "color", 4.5),
            (".sm-lines td", "color", 4.5),
        ):
            found = page.evaluate(
                f"([selector, property]) => ({ratio})(selector, property)", [selector, name]
            )
            assert found >= least, (selector, found)

    def by_keyboard(self, page: Any) -> None:
        """The table of a chart, without a mouse; and each chart has a name and a description."""
        from playwright.sync_api import expect

        name = "Logins by the hour, last 48 hours"
        chart = page.get_by_role("img", name=name)
        expect(chart).to_have_accessible_description(re.compile(r"[\d,]+ in all; the highest"))
        figure = page.locator(".sm-chart").first
        figure.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(figure.locator("tbody tr")).to_have_count(48)
        expect(figure.locator("tbody tr").first).to_be_visible()
        expect(figure.locator("tbody tr").first).to_contain_text("(so far)")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "sm-scroll"
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        expect(figure.locator("tbody tr").first).not_to_be_visible()

    def picture(self, page: Any, name: str) -> None:
        """A screenshot, where SM_TEST_SCREENSHOTS names a directory."""
        directory = os.environ.get("SM_TEST_SCREENSHOTS")
        if directory:
            page.screenshot(path=Path(directory) / f"{name}.png")
            page.screenshot(path=Path(directory) / f"{name}-whole.png", full_page=True)
