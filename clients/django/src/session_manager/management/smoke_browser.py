"""A browser for session_smoke: it keeps cookies, and tells what an answer does to them.

By the standard library: an HTTP client that keeps to itself what the checks want to see (redirects,
attributes of cookies, headers) would be of no use.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult

TOKEN = re.compile(r"sm1_[A-Za-z0-9_-]{64}", re.ASCII)
#: Bytes of an answer that are read.
LONGEST_ANSWER = 1 << 20


class Unreachable(Exception):
    """No answer, or none that is HTTP."""


@dataclass(frozen=True)
class SetCookie:
    name: str
    value: str = field(repr=False)
    #: By their names in lower case; "" for those without a value.
    attributes: Mapping[str, str]

    @property
    def clears(self) -> bool:
        return not self.value or self.attributes.get("max-age") == "0"

    @classmethod
    def parse(cls, header: str) -> SetCookie:
        first, *rest = (part.strip() for part in header.split(";"))
        name, _, value = first.partition("=")
        pairs = (part.partition("=") for part in rest)
        return cls(name, value, {key.strip().lower(): text.strip() for key, _, text in pairs})


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str = field(repr=False)
    cookies: tuple[SetCookie, ...]

    def header(self, name: str) -> str:
        """All values of a header, as one."""
        return ", ".join(self.headers.get_all(name) or ())

    def words(self, name: str) -> set[str]:
        return {word.strip().lower() for word in self.header(name).split(",")}

    @property
    def body(self) -> Mapping[str, Any]:
        try:
            body = json.loads(self.text)
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))

    @property
    def session(self) -> Mapping[str, Any]:
        session = self.body.get("session")
        return session if isinstance(session, dict) else {}

    @property
    def token_cookie(self) -> SetCookie | None:
        """The cookie that brings a session token."""
        return next((c for c in self.cookies if TOKEN.fullmatch(c.value)), None)

    def __str__(self) -> str:
        text = f"{self.status} {self.code}".strip()
        if 300 <= self.status < 400:
            text += f" to {self.header('Location')}"
        return text


class Browser:
    """One device.  ``session_id`` is of the session that it was given last."""

    def __init__(
        self, base: SplitResult, context: ssl.SSLContext | None, timeout: float, user_agent: str
    ) -> None:
        self._base = base
        self._context = context
        self._timeout = timeout
        self._user_agent = user_agent
        self.jar: dict[str, str] = {}
        self.cookie_name: str | None = None
        self.csrf_token: str | None = None
        self.session_id: str | None = None

    @property
    def origin(self) -> str:
        return f"{self._base.scheme}://{self._base.netloc}"

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """As a page of the application would send it; a header that is None is left out."""
        sent: dict[str, str | None] = {
            "Accept": "application/json",
            "User-Agent": self._user_agent,
            "Sec-Fetch-Site": "same-origin",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.jar.items()) or None,
        }
        if method != "GET":
            sent |= {
                "Origin": self.origin,
                "Referer": f"{self.origin}/",
                "X-CSRFToken": self.csrf_token,
            }
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        answer = self._exchange(
            method,
            self._base.path + path,
            None if body is None else json.dumps(body).encode(),
            {name: value for name, value in sent.items() if value is not None},
        )
        self._keep(answer)
        return answer

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        host, port = self._base.hostname or "", self._base.port
        connection: http.client.HTTPConnection
        if self._base.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, port, timeout=self._timeout, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read(LONGEST_ANSWER).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        cookies = map(SetCookie.parse, response.headers.get_all("Set-Cookie") or ())
        return Answer(response.status, response.headers, text, tuple(cookies))

    def _keep(self, answer: Answer) -> None:
        for cookie in answer.cookies:
            if cookie.clears:
                self.jar.pop(cookie.name, None)
            else:
                self.jar[cookie.name] = cookie.value
        if answer.token_cookie is not None:
            self.cookie_name = answer.token_cookie.name
        if answer.header("X-CSRFToken"):
            self.csrf_token = answer.header("X-CSRFToken")
        if answer.status == 201 and "id" in answer.session:
            self.session_id = str(answer.session["id"])

    @property
    def signed_in(self) -> bool:
        return self.cookie_name in self.jar
