"""The checks of session_smoke: a walk over the endpoints of a running deployment.

Each check notes what it saw beside what it expected.  The walk makes sessions of the access token's
account and ends them all, whatever happens in between; other sessions of the account stay unless it
is told to sign out everywhere.
"""

from __future__ import annotations

import secrets
import ssl
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult

from ..conf import HOST_PREFIX
from .smoke_browser import Answer, Browser, SetCookie, Unreachable

FOREIGN = "https://attacker.invalid"
#: Seconds by which the cookie's lifetime may differ from the session's.
LEEWAY = 120
#: The pages of a list that are read, of 100 sessions each.
MOST_PAGES = 20

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


@dataclass(frozen=True)
class Result:
    name: str
    outcome: str
    saw: str
    expected: str


class Stop(Exception):
    """What follows makes no sense without what has failed."""


class Smoke:
    """One walk.  ``results`` is what it saw, ``left`` the ids of sessions that it could not end."""

    def __init__(
        self,
        base: SplitResult,
        access_token: str,
        *,
        context: ssl.SSLContext | None = None,
        timeout: float = 10,
        everywhere: bool = False,
        member: str | None = "client",
        tell: Callable[[Result], None] = lambda result: None,
    ) -> None:
        """member: one of the session's data that a browser may write.  tell: gets each result."""
        self._base = base
        self._bearer = {"Authorization": f"Bearer {access_token}"}
        self._context = context
        self._timeout = timeout
        self._everywhere = everywhere
        self._member = member
        self._tell = tell
        #: By which the sessions of this walk are known among the account's.
        self.user_agent = f"session_smoke {secrets.token_hex(8)}"
        self.results: list[Result] = []
        self._browsers: list[Browser] = []
        #: Sessions that may live.
        self._made: set[str] = set()
        #: Whether a login may have made a session without its answer having come.
        self._unanswered = False
        #: Whether a cookie of a session has worked.
        self._recognized = False
        self.left: set[str] = set()

    @property
    def secure(self) -> bool:
        return self._base.scheme == "https"

    def run(self) -> None:
        try:
            self._walk()
        except Stop:
            pass
        except Unreachable as error:
            self._check("the deployment answers", False, str(error), "an answer")
        finally:
            self._clean_up()

    def count(self, outcome: str) -> int:
        return sum(result.outcome == outcome for result in self.results)

    def report(self) -> dict[str, Any]:
        """What there is to tell, for a program."""
        return {
            "url": self._base.geturl(),
            "passed": not self.count(FAILED),
            "checks": [asdict(result) for result in self.results],
            "left": sorted(self.left),
        }

    # Results

    def _check(self, name: str, good: bool, saw: Any, expected: str) -> bool:
        return self._add(Result(name, OK if good else FAILED, str(saw), expected))

    def _skip(self, name: str, why: str) -> None:
        self._add(Result(name, SKIPPED, why, ""))

    def _add(self, result: Result) -> bool:
        self.results.append(result)
        self._tell(result)
        return result.outcome == OK

    def _expect(self, name: str, answer: Answer, status: int, code: str = "") -> bool:
        good = answer.status == status and (not code or answer.code == code)
        return self._check(name, good, answer, f"{status} {code}".strip())

    def _need(self, good: bool) -> None:
        if not good:
            raise Stop

    # Steps

    def _browser(self) -> Browser:
        browser = Browser(self._base, self._context, self._timeout, self.user_agent)
        self._browsers.append(browser)
        # For the CSRF token.
        browser.send("GET", "current/")
        return browser

    def _create(self, browser: Browser, headers: Mapping[str, str | None]) -> Answer:
        self._unanswered = True
        answer = browser.send("POST", "create/", {}, headers=headers)
        self._unanswered = False
        if answer.status == 201 and browser.session_id is not None:
            self._made.add(browser.session_id)
        return answer

    def _another_device(self, name: str) -> Browser:
        browser = self._browser()
        self._need(self._expect(name, self._create(browser, self._bearer), 201))
        return browser

    def _walk(self) -> None:
        self._without_a_session()
        self._refused_logins()
        browser = self._login()
        self._current(browser)
        self._patch(browser)
        self._refresh(browser)
        self._list_and_revoke(browser)
        self._invalidate_all(browser)
        self._log_out(browser)

    def _without_a_session(self) -> None:
        browser = Browser(self._base, self._context, self._timeout, self.user_agent)
        answer = browser.send("GET", "current/")
        self._need(self._expect("current without a cookie", answer, 401, "not_authenticated"))
        self._check(
            "its challenge",
            bool(answer.header("WWW-Authenticate")),
            answer.header("WWW-Authenticate") or "no WWW-Authenticate",
            "WWW-Authenticate",
        )
        self._not_stored("its caching headers", answer)

    def _refused_logins(self) -> None:
        browser = self._browser()
        answer = self._create(browser, {})
        self._check("create without an access token", answer.status == 401, answer, "401")
        answer = self._create(browser, {"Authorization": "Bearer nonsense"})
        self._check("create with a wrong access token", answer.status == 401, answer, "401")
        self._refused_csrf(
            "create", browser, lambda headers: self._create(browser, {**self._bearer, **headers})
        )

    def _refused_csrf(
        self, name: str, browser: Browser, send: Callable[[Mapping[str, str | None]], Answer]
    ) -> None:
        """What another site could make a browser send."""
        foreign: dict[str, str | None] = {"Origin": FOREIGN, "Referer": f"{FOREIGN}/"}
        cases = {
            "from another site": {**foreign, "Sec-Fetch-Site": "cross-site"},
            "with the Origin of another site": {**foreign, "Sec-Fetch-Site": None},
        }
        for case, headers in cases.items():
            self._expect(f"{name} {case}", send(headers), 403, "csrf_failed")
        if browser.csrf_token is None:
            self._skip(f"{name} without a CSRF token", "the deployment has given none: CSRF_TOKEN")
        else:
            self._expect(
                f"{name} without the CSRF token", send({"X-CSRFToken": None}), 403, "csrf_failed"
            )

    def _login(self) -> Browser:
        browser = self._browser()
        answer = self._create(browser, self._bearer)
        self._need(self._expect("create", answer, 201))
        self._no_token_in("its body", answer)
        self._not_stored("its caching headers", answer)
        cookie = answer.token_cookie
        if cookie is None:
            names = ", ".join(c.name for c in answer.cookies) or "no cookie"
            self._check("its cookie", False, names, "a cookie with a session token")
            raise Stop
        self._attributes("its cookie", cookie, answer)
        return browser

    def _attributes(self, name: str, cookie: SetCookie, answer: Answer) -> None:
        has = cookie.attributes
        self._check(f"{name} is HttpOnly", "httponly" in has, _shown(has, "httponly"), "HttpOnly")
        if self.secure:
            self._check(f"{name} is Secure", "secure" in has, _shown(has, "secure"), "Secure")
        else:
            self._skip(f"{name} is Secure", "the URL is not https")
        self._check(
            f"{name} has SameSite",
            has.get("samesite", "").lower() in ("lax", "strict")
            or (has.get("samesite", "").lower() == "none" and "secure" in has),
            _shown(has, "samesite"),
            "SameSite=Lax or Strict",
        )
        self._check(f"{name} has Path=/", has.get("path") == "/", _shown(has, "path"), "Path=/")
        if cookie.name.startswith(HOST_PREFIX):
            good, expected = "domain" not in has and "secure" in has, "Secure, no Domain"
        elif self.secure and "domain" not in has:
            good, expected = False, f"the prefix {HOST_PREFIX} (COOKIE_HOST_PREFIX)"
        else:
            good, expected = True, "a name"
        domain = f", Domain={has['domain']}" if "domain" in has else ""
        self._check(f"{name}'s name", good, cookie.name + domain, expected)
        left = _seconds_left(answer)
        age = has.get("max-age", "")
        close = age.isdigit() and left is not None and abs(int(age) - left) <= LEEWAY
        self._check(
            f"{name}'s Max-Age", close, age or "none", f"about {left}: to absolute_expires_at"
        )

    def _current(self, browser: Browser) -> None:
        answer = browser.send("GET", "current/")
        good = self._expect("current", answer, 200)
        self._need(good)
        self._recognized = True
        self._check(
            "it is the session that was created",
            answer.session.get("id") == browser.session_id,
            answer.session.get("id"),
            str(browser.session_id),
        )
        self._check(
            "it sets no session cookie",
            answer.token_cookie is None,
            _either(answer.token_cookie),
            "none",
        )
        self._no_token_in("its body", answer)
        self._not_stored("its caching headers", answer)
        self._check(
            "it varies with the cookie",
            "cookie" in answer.words("Vary") or "*" in answer.words("Vary"),
            answer.header("Vary") or "no Vary",
            "Vary: Cookie",
        )
        version = answer.session.get("version")
        self._check(
            "its ETag",
            answer.header("ETag") == f'"{version}"',
            answer.header("ETag"),
            f'"{version}"',
        )
        again = browser.send("GET", "current/")
        self._check(
            "asked again, it gives a new answer",
            again.status == 200 and again.body.get("server_time") != answer.body.get("server_time"),
            "the same server_time" if again.text == answer.text else again,
            "200 with another server_time",
        )
        stranger = Browser(self._base, self._context, self._timeout, self.user_agent)
        answer = stranger.send("GET", "current/")
        self._expect("a request without the cookie behind it", answer, 401)

    def _patch(self, browser: Browser) -> None:
        member = self._member
        if member is None:
            self._skip("patch", "a browser may write nothing: CLIENT_DATA")
            return
        before = browser.send("GET", "current/")
        value = {"session_smoke": secrets.token_hex(8)}

        def patch(headers: Mapping[str, str | None]) -> Answer:
            return browser.send("PATCH", "current/", {member: value}, headers=headers)

        self._refused_csrf("patch", browser, patch)
        version = before.session.get("version")
        self._expect(
            "patch of another version", patch({"If-Match": '"0"'}), 412, "version_conflict"
        )
        unchanged = browser.send("GET", "current/").session.get("version")
        self._check("these have changed nothing", unchanged == version, unchanged, str(version))
        answer = patch({"If-Match": f'"{version}"'})
        if self._expect("patch", answer, 200):
            read = browser.send("GET", "current/").session.get("data") or {}
            self._check(
                "it is there when read",
                read.get(member) == value,
                "there" if read.get(member) == value else "another value",
                f"the value, as {member}",
            )
        answer = browser.send("PATCH", "current/", {"session_smoke_protected": 1})
        self._expect("patch of what is the server's", answer, 400, "protected_data")

    def _refresh(self, browser: Browser) -> None:
        before = dict(browser.jar)
        old = Browser(self._base, self._context, self._timeout, self.user_agent)
        old.jar, old.cookie_name, old.csrf_token = before, browser.cookie_name, browser.csrf_token
        answer = browser.send("POST", "refresh/")
        self._need(self._expect("refresh", answer, 200))
        self._no_token_in("its body", answer)
        cookie = answer.token_cookie
        status = answer.body.get("status")
        if status == "extended":
            self._check("it keeps the token", cookie is None, status, "no new cookie")
            return
        self._check(
            "it replaces the token", status == "rotated" and cookie is not None, status, "rotated"
        )
        if cookie is None:
            raise Stop
        self._attributes("its cookie", cookie, answer)
        self._not_stored("its caching headers", answer)
        changed = before.get(cookie.name) != cookie.value
        self._check("its token is new", changed, "new" if changed else "the old one", "new")
        # Requests that were under way.
        self._expect("current with the replaced token", old.send("GET", "current/"), 200)
        self._expect("current with the new token", browser.send("GET", "current/"), 200)

    def _list(self, browser: Browser) -> tuple[Answer, list[Mapping[str, Any]]]:
        """The first answer, and the account's sessions."""
        first = answer = browser.send("GET", "?limit=100")
        found: list[Mapping[str, Any]] = []
        for _ in range(MOST_PAGES):
            results = answer.body.get("results") if answer.status == 200 else None
            found += [entry for entry in results if isinstance(entry, dict)] if results else []
            following = answer.body.get("next")
            if not following:
                break
            answer = browser.send("GET", "?" + str(following).partition("?")[2])
        return first, found

    def _list_and_revoke(self, browser: Browser) -> None:
        other = self._another_device("create on a second device")
        answer, sessions = self._list(browser)
        self._expect("list", answer, 200)
        self._no_token_in("its body", answer)
        self._not_stored("its caching headers", answer)
        ids = {entry.get("id") for entry in sessions}
        self._check(
            "it has both sessions",
            {browser.session_id, other.session_id} <= ids,
            f"{len(sessions)} sessions",
            "both",
        )
        current = [entry.get("id") for entry in sessions if entry.get("is_current")]
        self._check("it marks the current one", current == [browser.session_id], current, "one")
        unknown = browser.send("DELETE", f"{uuid.uuid4()}/")
        self._expect("revoke what does not exist", unknown, 404, "not_found")
        self._refused_csrf(
            "revoke",
            browser,
            lambda headers: browser.send("DELETE", f"{other.session_id}/", headers=headers),
        )
        answer = browser.send("DELETE", f"{other.session_id}/")
        self._expect("revoke one", answer, 204)
        self._ended("the revoked one", other)
        self._expect("the other one lives", browser.send("GET", "current/"), 200)

    def _ended(self, name: str, browser: Browser) -> None:
        """A session must have ended; the answer that says so leaves the cookie."""
        before = dict(browser.jar)
        answer = browser.send("GET", "current/")
        saw = f"{answer}, reason {answer.body.get('reason')}"
        if self._check(f"{name} has ended", _says_ended(answer), saw, "401 session_revoked"):
            self._made.discard(str(browser.session_id))
        touched = [c for c in answer.cookies if c.name == browser.cookie_name]
        self._check(
            "the 401 leaves the cookie",
            not touched,
            "Set-Cookie of it" if touched else "no Set-Cookie of it",
            "no Set-Cookie of it",
        )
        browser.jar = before

    def _invalidate_all(self, browser: Browser) -> None:
        name = "invalidate-all"
        _, sessions = self._list(browser)
        others = [entry for entry in sessions if entry.get("user_agent") != self.user_agent]
        if others and not self._everywhere:
            self._skip(
                name,
                f"it would sign out {len(others)} sessions of the account that are not this "
                "walk's; use an account of its own, or --sign-out-everywhere",
            )
            return
        other = self._another_device("create on a third device")
        self._refused_csrf(
            name,
            browser,
            lambda headers: browser.send(
                "POST", "invalidate-all/", {"except_current": True}, headers=headers
            ),
        )
        answer = browser.send("POST", "invalidate-all/", {"except_current": True})
        self._expect(f"{name} but the current one", answer, 200)
        self._ended("the third device's", other)
        self._expect("the current one lives", browser.send("GET", "current/"), 200)
        old = dict(browser.jar)
        answer = browser.send("POST", "invalidate-all/", {"except_current": False})
        if self._expect(name, answer, 200):
            self._cleared("it clears the cookie", browser, answer)
        browser.jar = old
        self._ended("the current one", browser)
        again = self._create(browser, self._bearer)
        self._need(self._expect("create once more", again, 201))

    def _log_out(self, browser: Browser) -> None:
        self._refused_csrf(
            "log out",
            browser,
            lambda headers: browser.send("DELETE", "current/", headers=headers),
        )
        old = dict(browser.jar)
        answer = browser.send("DELETE", "current/")
        if self._expect("log out", answer, 204):
            self._cleared("it clears the cookie", browser, answer)
        browser.jar = old
        self._ended("the session", browser)

    def _cleared(self, name: str, browser: Browser, answer: Answer) -> None:
        cookie = next((c for c in answer.cookies if c.name == browser.cookie_name), None)
        good = (
            cookie is not None
            and cookie.clears
            and cookie.attributes.get("path") == "/"
            and ("secure" in cookie.attributes or not self.secure)
        )
        self._check(
            name,
            good,
            "no Set-Cookie of it" if cookie is None else _described(cookie),
            "an empty value, Max-Age=0, with the same attributes",
        )

    # Headers

    def _not_stored(self, name: str, answer: Answer) -> None:
        words = answer.words("Cache-Control")
        saw = answer.header("Cache-Control") or "no Cache-Control"
        if answer.header("Age"):
            saw += f", Age: {answer.header('Age')}"
        self._check(
            name,
            {"private", "no-store"} <= words and not answer.header("Age"),
            saw,
            "Cache-Control: private, no-store, and no Age",
        )

    def _no_token_in(self, name: str, answer: Answer) -> None:
        found = "sm1_" in answer.text
        self._check(f"{name} has no token", not found, "a token" if found else "none", "none")

    # The end

    def _clean_up(self) -> None:
        """End what was made, as far as it may live."""
        try:
            for browser in self._browsers:
                if browser.signed_in and browser.session_id in self._made:
                    self._end_by_cookie(browser)
            if self._unanswered or (self._made and self._recognized):
                self._end_from_another_device()
        except Unreachable:
            pass
        self.left = {*self._made}
        if self.left:
            self._check(
                "nothing is left behind",
                False,
                ", ".join(sorted(self.left)),
                "no session; end them with: manage.py sessions revoke ID",
            )
        elif self._browsers:
            self._check("nothing is left behind", True, "every session has ended", "no session")

    def _end_by_cookie(self, browser: Browser) -> None:
        jar = dict(browser.jar)
        browser.send("DELETE", "current/")
        browser.jar = jar
        if _says_ended(browser.send("GET", "current/")):
            self._made.discard(str(browser.session_id))

    def _end_from_another_device(self) -> None:
        """End what no browser here has the cookie of, as far as the account's list has it."""
        browser = self._browser()
        if self._create(browser, self._bearer).status != 201:
            return
        for ours in self._listed_ids(browser) - {browser.session_id}:
            browser.send("DELETE", f"{ours}/")
        answer, _ = self._list(browser)
        if answer.status == 200:
            self._made = self._listed_ids(browser) | {str(browser.session_id)}
        self._end_by_cookie(browser)

    def _listed_ids(self, browser: Browser) -> set[str]:
        """Those of the account's sessions that this walk has made."""
        return {
            str(entry.get("id"))
            for entry in self._list(browser)[1]
            if entry.get("user_agent") == self.user_agent
        }


def _says_ended(answer: Answer) -> bool:
    """Whether an answer says so of the session whose cookie it got."""
    return answer.status == 401 and answer.code in ("session_revoked", "session_expired")


def _either(cookie: SetCookie | None) -> str:
    return "none" if cookie is None else cookie.name


def _shown(attributes: Mapping[str, str], name: str) -> str:
    if name not in attributes:
        return f"no {name}"
    return f"{name}={attributes[name]}" if attributes[name] else name


def _described(cookie: SetCookie) -> str:
    """Without its value."""
    return ", ".join(
        [
            "empty" if not cookie.value else "a value",
            *(_shown(cookie.attributes, n) for n in cookie.attributes),
        ]
    )


def _seconds_left(answer: Answer) -> int | None:
    try:
        end, now = (
            datetime.fromisoformat(str(text).replace("Z", "+00:00"))
            for text in (answer.session.get("absolute_expires_at"), answer.body.get("server_time"))
        )
    except ValueError:
        return None
    return int((end - now).total_seconds())
