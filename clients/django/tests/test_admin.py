"""The admin: who may see and do what; and the pages in a real browser."""

from __future__ import annotations

import os
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from session_manager.models import SessionEvent
from session_manager.services import session_service
from session_manager.types import CreatedSession

pytestmark = pytest.mark.django_db

LIST = "/admin/session_manager/usersession/"
EVENTS = "/admin/session_manager/sessionevent/"
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36",
)
HOSTILE = "<script>alert('agent')</script>"


def staff(*permissions: str) -> Client:
    user = get_user_model().objects.create_user("clerk", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def act(client: Client, action: str, *created: CreatedSession) -> Any:
    return client.post(
        LIST, {"action": action, "_selected_action": [str(c.id) for c in created]}, follow=True
    )


class TestPermissions:
    def test_nothing_without(self, created: CreatedSession) -> None:
        client = staff()
        assert client.get(LIST).status_code == 403
        assert client.get(f"{LIST}{created.id}/change/").status_code == 403
        assert client.post(f"{LIST}{created.id}/change/", {"_revoke": "1"}).status_code == 403
        act(client, "revoke", created)
        assert session_service.get(created.token) is not None

    def test_to_see(self, created: CreatedSession) -> None:
        client = staff("view_usersession")
        page = client.get(LIST).content.decode()
        assert "Revoke the" not in page
        assert "_revoke" not in page
        page = client.get(f"{LIST}{created.id}/change/").content.decode()
        assert "Revoke the" not in page
        assert "_revoke" not in page
        assert "created" in page
        act(client, "revoke", created)
        assert client.post(f"{LIST}{created.id}/change/", {"_revoke": "1"}).status_code == 403
        assert session_service.get(created.token) is not None

    def test_nobody_adds_changes_or_deletes(self, created: CreatedSession) -> None:
        client = Client()
        client.force_login(get_user_model().objects.create_superuser("root"))
        assert client.get(f"{LIST}add/").status_code == 403
        assert client.get(f"{LIST}{created.id}/delete/").status_code == 403
        act(client, "delete_selected", created)
        assert session_service.get(created.token) is not None


@pytest.fixture
def clerk(db: None) -> Client:
    return staff("view_usersession", "revoke_usersession", "view_sessionevent")


class TestPages:
    def test_list_and_search(self, clerk: Client, configure: Any) -> None:
        configure(USER_ID_FIELD="username")
        get_user_model().objects.create_user("ada", "ada@example.com")
        ada = session_service.create("ada", ip="203.0.113.7", user_agent=HOSTILE)
        other = session_service.create("somebody else")
        for term in ("ada", "ada@example", "203.0.113.7", str(ada.id)):
            page = clerk.get(LIST, {"q": term}).content.decode()
            assert str(ada.id)[-12:-4] in page, term
            assert str(other.id)[-12:-4] not in page, term
        assert "<script>alert" not in page
        assert clerk.get(LIST, {"q": "nobody at all"}).status_code == 200

    def test_filter(self, clerk: Client, created: CreatedSession, user_id: str) -> None:
        ended = session_service.create(user_id)
        session_service.invalidate(ended.token)
        live_page = clerk.get(LIST, {"state": "live", "q": user_id}).content.decode()
        ended_page = clerk.get(LIST, {"state": "ended", "q": user_id}).content.decode()
        link = reverse("admin:session_manager_usersession_change", args=[created.id])
        ended_link = reverse("admin:session_manager_usersession_change", args=[ended.id])
        assert link in live_page
        assert ended_link not in live_page
        assert ended_link in ended_page
        assert link not in ended_page

    def test_history(self, clerk: Client, user_id: str) -> None:
        created = session_service.create(user_id, ip="203.0.113.7", user_agent=HOSTILE)
        session_service.update(created.token, {"secret": "of the session"})
        session_service.invalidate(created.token)
        page = clerk.get(f"{LIST}{created.id}/change/").content.decode()
        for text in ("created", "updated", "invalidated", "reason: logout", "203.0.113.7"):
            assert text in page
        for text in ("<script>alert", "of the session", "sm1_", "sd1_"):
            assert text not in page

    def test_events(self, clerk: Client, created: CreatedSession, user_id: str) -> None:
        page = clerk.get(EVENTS, {"q": user_id}).content.decode()
        assert str(created.id)[:13] in page

    def test_one_event(self, clerk: Client, created: CreatedSession, user_id: str) -> None:
        """Found by its time, as no index of the events leads with their numbers."""
        page = clerk.get(EVENTS, {"q": user_id}).content.decode()
        (link,) = re.findall(rf'href="({EVENTS}[^"]*/change/[^"]*)"', page)
        with CaptureQueriesContext(connection) as asked:
            event = clerk.get(unescape(link))
        assert user_id in event.content.decode()
        assert any('"at" = ' in query["sql"] for query in asked)
        (number,) = re.findall(r"/(\d+)/change/", link)
        assert f"{number}/history/" not in event.content.decode()
        for at in ("", "?at=nonsense", "?at=2026-02-30T00:00Z", "?at=2020-01-01T00:00Z"):
            assert clerk.get(f"{EVENTS}{number}/change/{at}").status_code == 200
            for other in ("x", "9" * 5000):
                assert clerk.get(f"{EVENTS}{other}/change/{at}").status_code == 302

    def test_without_use_tz(self, clerk: Client, user_id: str, settings: Any) -> None:
        session_service.create(user_id)
        settings.USE_TZ = False
        assert user_id in clerk.get(LIST, {"q": user_id}).content.decode()
        (link,) = re.findall(
            rf'href="({EVENTS}[^"]*/change/[^"]*)"',
            clerk.get(EVENTS, {"q": user_id}).content.decode(),
        )
        assert user_id in clerk.get(unescape(link)).content.decode()

    @pytest.mark.parametrize("use_tz", [True, False])
    def test_times_are_local(
        self, clerk: Client, user_id: str, settings: Any, use_tz: bool
    ) -> None:
        created = session_service.create(user_id)
        settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Kathmandu"
        page = clerk.get(f"{LIST}{created.id}/change/").content.decode()
        local = created.created_at.astimezone(ZoneInfo("Asia/Kathmandu"))
        (of_event,) = re.findall(r'<time datetime="[^"]*">([^<]*)</time>', page)
        assert of_event == f"{local:%Y-%m-%d %H:%M:%S}"

    @pytest.mark.parametrize("use_tz", [True, False])
    @pytest.mark.parametrize(
        "at",
        [
            "0001-01-01T00:00:00%2B14:00",
            "0001-01-01T00:00:00",
            "9999-12-31T23:59:59-14:00",
            "9999-12-31T23:59:59.999999",
            "2026-10-25T02:30:00",  # twice in Berlin
            "2026-03-29T02:30:00",  # never in Berlin
            "2026-11-29",
            "2026-11-29T10:00Z&at=nonsense",
            "%00",
            "2026-11-29T10:00:00%00",
        ],
    )
    def test_any_time_in_the_link(
        self, clerk: Client, user_id: str, settings: Any, use_tz: bool, at: str
    ) -> None:
        created = session_service.create(user_id)
        number = SessionEvent.objects.get(session_id=created.id).pk
        settings.USE_TZ = use_tz
        page = clerk.get(f"{EVENTS}{number}/change/?at={at}")
        assert page.status_code == 200
        assert user_id in page.content.decode()

    def test_number_of_queries(
        self, clerk: Client, user_id: str, django_assert_max_num_queries: Any
    ) -> None:
        for _ in range(20):
            session_service.create(user_id)
        with django_assert_max_num_queries(12):
            clerk.get(LIST)


class TestRevoke:
    def test_some(self, clerk: Client, user_id: str) -> None:
        first, second, third = (session_service.create(user_id) for _ in range(3))
        response = act(clerk, "revoke", first, second)
        assert "2 sessions have been ended." in response.content.decode()
        assert session_service.get(first.token) is None
        assert session_service.get(third.token) is not None
        entry = LogEntry.objects.get(object_id=str(first.id))
        assert entry.user.get_username() == "clerk"
        assert "Revoked" in entry.get_change_message()

    def test_all_of_a_user(self, clerk: Client, user_id: str) -> None:
        first, second = (session_service.create(user_id) for _ in range(2))
        other = session_service.create("somebody else")
        act(clerk, "revoke_all", first)
        assert session_service.get(second.token) is None
        assert session_service.get(other.token) is not None

    @pytest.mark.parametrize("button", ["_revoke", "_revoke_all"])
    def test_from_the_page(self, clerk: Client, user_id: str, button: str) -> None:
        first, second = (session_service.create(user_id) for _ in range(2))
        path = f"{LIST}{first.id}/change/"
        assert button in clerk.get(path).content.decode()
        response = clerk.post(path, {button: "1"}, follow=True)
        assert response.status_code == 200
        assert button not in response.content.decode()
        assert session_service.get(first.token) is None
        assert (session_service.get(second.token) is None) == (button == "_revoke_all")


def chromium() -> str | None:
    return shutil.which("chromium-headless-shell") or shutil.which("chromium")


@pytest.mark.browser
@pytest.mark.skipif(
    chromium() is None and "SM_TEST_NO_SKIP" not in os.environ, reason="no chromium"
)
class TestInABrowser(StaticLiveServerTestCase):
    """Signs in, searches, looks at a session and revokes, as a person does."""

    def setUp(self) -> None:
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        self.override = self.settings(SESSION_MANAGER={"USER_ID_FIELD": "username", "AUTH0": None})
        self.override.enable()
        users = get_user_model().objects
        users.create_superuser("admin", "admin@example.com", "secret")
        for name in ("ada", "grace", "linus"):
            users.create_user(name, f"{name}@example.com")

    def tearDown(self) -> None:
        self.override.disable()
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]

    def test_everything(self) -> None:
        from playwright.sync_api import expect, sync_playwright

        made = []
        for n, (name, agent) in enumerate(
            zip(("ada", "grace", "linus", "ada"), (*AGENTS, AGENTS[0]), strict=True)
        ):
            made.append(
                session_service.create(
                    name,
                    {"plan": "team"},
                    ip=f"203.0.113.{n + 7}",
                    user_agent=agent,
                    tenant_id=("acme", "globex")[n % 2],
                )
            )
        story = made[3]
        session_service.update(story.token, {"plan": "free"})
        rotated = session_service.refresh(
            story.token, rotate=True, ip="203.0.113.10", user_agent=AGENTS[0]
        )
        session_service.elevate(rotated.token, {"amr": ["pwd", "otp"]})
        session_service.invalidate(made[1].token)
        hostile = session_service.create(HOSTILE, user_agent=HOSTILE, tenant_id=HOSTILE)

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1500, "height": 640})
            failures: list[str] = []
            page.on("pageerror", lambda error: failures.append(str(error)))
            page.on("dialog", lambda dialog: failures.append(dialog.message))
            page.goto(f"{self.live_server_url}/admin/")
            page.fill("#id_username", "admin")
            page.fill("#id_password", "secret")
            with page.expect_navigation():
                page.click("input[type=submit]")

            page.goto(f"{self.live_server_url}{LIST}")
            page.fill("#searchbar", "ada@example.com")
            with page.expect_navigation():
                page.press("#searchbar", "Enter")
            expect(page.locator("#result_list tbody tr")).to_have_count(2)
            page.goto(f"{self.live_server_url}{LIST}?state=live")
            page.fill("#searchbar", "example.com")
            with page.expect_navigation():
                page.press("#searchbar", "Enter")
            expect(page.locator("#result_list tbody tr")).to_have_count(3)
            page.goto(f"{self.live_server_url}{LIST}?q=example.com")
            self.picture(page, "admin-list")

            with page.expect_navigation():
                page.click(f"a[href*='{story.id}']")
            expect(page.locator(".sm-timeline .sm-event")).to_have_count(4)
            self.picture(page, "admin-session")
            with page.expect_navigation():
                page.click("input[name=_revoke]")
            expect(page.locator(".messagelist")).to_contain_text("1 session has been ended.")
            expect(page.locator(".sm-timeline .sm-event")).to_have_count(5)
            expect(page.locator("input[name=_revoke]")).to_have_count(0)

            for path in (f"{LIST}?q=alert", f"{LIST}{hostile.id}/change/", f"{EVENTS}?q=alert"):
                page.goto(f"{self.live_server_url}{path}")
                expect(page.locator("#content")).to_contain_text("<script>alert")

            page.goto(f"{self.live_server_url}{LIST}?q=linus")
            page.check(f"input[value='{made[2].id}']")
            page.select_option("select[name=action]", "revoke_all")
            with page.expect_navigation():
                page.click("button[name=index]")
            expect(page.locator(".messagelist")).to_contain_text("1 session has been ended.")
            browser.close()
        assert failures == []
        assert session_service.get(made[2].token) is None
        assert session_service.get(made[0].token) is not None

    def picture(self, page: Any, name: str) -> None:
        """A screenshot, where SM_TEST_SCREENSHOTS names a directory."""
        directory = os.environ.get("SM_TEST_SCREENSHOTS")
        if directory:
            page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)
