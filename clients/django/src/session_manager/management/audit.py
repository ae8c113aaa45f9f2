"""Which requirements the running settings meet: what session_audit of the extension leaves to the
application, as far as Django's settings tell.

The requirements themselves are the extension's.  A judge here is named by the reference of the row
in whose place its findings come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings as django_settings
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.module_loading import import_string

from ..conf import HOST_PREFIX, settings
from ..store.database import call, function
from ..store.users import knows_users

PROFILES = ("aal1", "aal2", "aal3", "asvs1", "asvs2", "asvs3")
YES, NO, APPLICATION = "yes", "no", "application"
YEAR = 365 * 24 * 3600


@dataclass(frozen=True)
class Verdict:
    """Whether a setting meets a requirement; if not, what to do."""

    met: str
    setting: str | None
    value: str | None
    hint: str | None = None


#: What is found of a profile.
Judge = Callable[[str], Iterator[Verdict]]


@dataclass(frozen=True)
class Finding:
    """A verdict with the requirement that it is about."""

    reference: str
    requirement: str
    met: str
    setting: str | None
    value: str | None
    hint: str | None


def audit(profile: str) -> list[Finding]:
    """What the extension and Django's settings say of a profile's requirements."""
    rows = call(
        "SELECT reference, requirement, met, setting, value, hint"
        f" FROM {function('session_audit')}(%s)",
        [profile],
    )
    findings = []
    for row in rows:
        judge = JUDGES.get(row["reference"]) if row["met"] == APPLICATION else None
        if judge is None:
            findings.append(Finding(**row))
            continue
        findings += [
            Finding(row["reference"], row["requirement"], v.met, v.setting, v.value, v.hint)
            for v in judge(profile)
        ]
    return findings


def _verdict(ok: bool, setting: str, value: Any, hint: str, otherwise: str = NO) -> Verdict:
    shown = "none" if value in (None, "") else str(value)
    return Verdict(YES, setting, shown) if ok else Verdict(otherwise, setting, shown, hint)


def _flag(setting: str, value: bool) -> Verdict:
    return _verdict(value, setting, value, "Set it to True.")


def _own(name: str) -> str:
    return f'SESSION_MANAGER["{name}"]'


def _cookie(name: str) -> str:
    """The setting of the session's cookie: Django's with this package's SESSION_ENGINE."""
    return f"SESSION_{name}" if settings.IS_ENGINE else _own(name)


def _middleware(wanted: type) -> Verdict:
    found = any(
        isinstance(one, type) and issubclass(one, wanted)
        for one in map(import_string, django_settings.MIDDLEWARE)
    )
    name = wanted.__name__
    shown = f"{name}" if found else f"without {name}"
    return _verdict(found, "MIDDLEWARE", shown, f"Add {wanted.__module__}.{name}.")


def _secure() -> Verdict:
    return _flag(_cookie("COOKIE_SECURE"), settings.cookie_secure)


def _named(*prefixes: str) -> Iterator[Verdict]:
    """The names of the session's cookie, of those beside it that are in use, and of CSRF's."""
    names = [settings.cookie_name]
    if settings.DEVICE_BOUND != "off":
        names.append(settings.device_cookie_name)
    if settings.MAY_IMPERSONATE:
        names.append(settings.actor_cookie_name)
    hint = (
        f"Let it begin with {HOST_PREFIX}."
        if settings.IS_ENGINE
        else "Leave COOKIE_HOST_PREFIX and COOKIE_DOMAIN unset, and COOKIE_SECURE True."
    )
    good = all(name.startswith(prefixes) for name in names)
    yield _verdict(good, _cookie("COOKIE_NAME"), ", ".join(names), hint)
    if not django_settings.CSRF_USE_SESSIONS:
        name = django_settings.CSRF_COOKIE_NAME
        hint = (
            f"Let it be {HOST_PREFIX}csrftoken. Leave it behind the Next.js package, which uses "
            "Django's default name and gives the cookie to no browser."
        )
        good = name.startswith(prefixes)
        yield _verdict(good, "CSRF_COOKIE_NAME", name, hint, otherwise=APPLICATION)


def _secure_and_named(profile: str) -> Iterator[Verdict]:
    yield _secure()
    if not django_settings.CSRF_USE_SESSIONS:
        yield _flag("CSRF_COOKIE_SECURE", django_settings.CSRF_COOKIE_SECURE)
    yield from _named(HOST_PREFIX, "__Secure-")


def _named_host(profile: str) -> Iterator[Verdict]:
    yield from _named(HOST_PREFIX)


def _named_host_and_path(profile: str) -> Iterator[Verdict]:
    yield next(_named(HOST_PREFIX))
    path = settings.cookie_path
    yield _verdict(path == "/", "SESSION_COOKIE_PATH", path, "Let it be /.")


def _samesite(profile: str) -> Iterator[Verdict]:
    given = [(_cookie("COOKIE_SAMESITE"), settings.COOKIE_SAMESITE)]
    if profile.startswith("asvs") and not django_settings.CSRF_USE_SESSIONS:
        given.append(("CSRF_COOKIE_SAMESITE", django_settings.CSRF_COOKIE_SAMESITE or ""))
    for setting, value in given:
        good = value.lower() in ("lax", "strict")
        yield _verdict(good, setting, value, "Let it be Lax or Strict.")


def _httponly(profile: str) -> Iterator[Verdict]:
    # Without SESSION_ENGINE no setting takes it away.
    yield _flag(
        "SESSION_COOKIE_HTTPONLY" if settings.IS_ENGINE else "HttpOnly", settings.cookie_httponly
    )


def _bearer(profile: str) -> Iterator[Verdict]:
    hint = (
        "Clients without cookies keep the token themselves: let them use a keychain. Browsers get "
        "no token in this way."
    )
    yield _verdict(not settings.BEARER, _own("BEARER"), settings.BEARER, hint, APPLICATION)


def _hidden(profile: str) -> Iterator[Verdict]:
    yield from _httponly(profile)
    yield from _bearer(profile)


def _domain(profile: str) -> Iterator[Verdict]:
    domain = settings.COOKIE_DOMAIN
    yield _verdict(domain is None, _cookie("COOKIE_DOMAIN"), domain, "Leave it unset.")


def _persistence(profile: str) -> Iterator[Verdict]:
    bound = settings.DEVICE_BOUND
    if bound == "require" or not settings.IS_ENGINE:
        hint = 'Log in with remember=False, or let it be "require".'
        yield _verdict(bound == "require", _own("DEVICE_BOUND"), bound, hint, APPLICATION)
        return
    yield _flag("SESSION_EXPIRE_AT_BROWSER_CLOSE", django_settings.SESSION_EXPIRE_AT_BROWSER_CLOSE)


def _hsts(seconds: int) -> Iterator[Verdict]:
    """As Django sends it: what a proxy in front adds is not known."""
    yield _middleware(SecurityMiddleware)
    given = django_settings.SECURE_HSTS_SECONDS
    yield _verdict(given >= seconds, "SECURE_HSTS_SECONDS", given, f"Let it be {seconds} or more.")


def _transport(profile: str) -> Iterator[Verdict]:
    yield _secure()
    yield from _hsts(1)


def _hsts_for_a_year(profile: str) -> Iterator[Verdict]:
    yield from _hsts(YEAR)
    if profile != "asvs1":
        yield _flag(
            "SECURE_HSTS_INCLUDE_SUBDOMAINS", django_settings.SECURE_HSTS_INCLUDE_SUBDOMAINS
        )


def _csrf(profile: str) -> Iterator[Verdict]:
    yield _flag(_own("CSRF_TOKEN"), settings.CSRF_TOKEN)
    yield _middleware(CsrfViewMiddleware)


def _standbys(profile: str) -> Iterator[Verdict]:
    aliases = settings.READ_DATABASE
    hint = "Set session_manager.revoke_commit to remote_apply, or read from the primary alone."
    yield _verdict(aliases is None, _own("READ_DATABASE"), aliases, hint)


def _end_on(*names: str) -> Judge:
    def judge(profile: str) -> Iterator[Verdict]:
        if not knows_users():
            hint = "Set it, so that users' sessions are known; or end them in the application."
            yield Verdict(APPLICATION, _own("USER_ID_FIELD"), "none", hint)
            return
        for name in names:
            yield _flag(_own(name), getattr(settings, name))

    return judge


#: By the reference of the extension's row.
JUDGES: Mapping[str, Judge] = {
    "NIST SP 800-63B-4 5.1 (persistence)": _persistence,
    "NIST SP 800-63B-4 5.1 (storage)": _bearer,
    "NIST SP 800-63B-4 5.1 (transport)": _transport,
    "NIST SP 800-63B-4 5.1 (CSRF)": _csrf,
    "NIST SP 800-63B-4 5.1.1 (1)": lambda profile: iter((_secure(),)),
    "NIST SP 800-63B-4 5.1.1 (2)": _domain,
    "NIST SP 800-63B-4 5.1.1 (3)": _httponly,
    "NIST SP 800-63B-4 5.1.1 (5)": _named_host_and_path,
    "NIST SP 800-63B-4 5.1.1 (6)": _samesite,
    "ASVS v5.0.0-3.3.1": _secure_and_named,
    "ASVS v5.0.0-3.3.2": _samesite,
    "ASVS v5.0.0-3.3.3": _named_host,
    "ASVS v5.0.0-3.3.4": _hidden,
    "ASVS v5.0.0-3.4.1": _hsts_for_a_year,
    "ASVS v5.0.0-3.5.1": _csrf,
    "ASVS v5.0.0-7.4.1": _standbys,
    "ASVS v5.0.0-7.4.2": _end_on("END_ON_USER_DELETED", "END_ON_USER_DEACTIVATED"),
    "ASVS v5.0.0-7.4.3": _end_on("END_ON_PASSWORD_CHANGED"),
}
