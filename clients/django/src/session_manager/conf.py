"""Settings: ``SESSION_MANAGER = {...}``, and the few that an adopter already has.

Read through ``settings.NAME``; each attribute is documented where it stands, and in docs/django.md.
Values are read once and again whenever Django reports a changed setting (tests do).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

#: The value of SESSION_ENGINE with which request.session is this package's.
ENGINE = "session_manager.backends.sessions"

#: Settings of the cookie that are Django's then, with SESSION_ before the name.
ENGINE_COOKIE = ("COOKIE_NAME", "COOKIE_SECURE", "COOKIE_DOMAIN", "COOKIE_SAMESITE")
#: The member of a session's data that is request.session.  No browser may write it, or sees it.
MEMBER = "_django"

# Django's own defaults; a value that differs has been set by the adopter.
DJANGO_COOKIE_NAME = "sessionid"
DEFAULT_COOKIE_NAME = "session_token"
HOST_PREFIX = "__Host-"

DEFAULT_CLIENT_DATA = ("client",)
DEFAULT_DEVICE_COOKIE_NAME = "session_proof"

#: What DEVICE_BOUND may be, or a function may return.
DEVICE_MODES = ("off", "offer", "require")
#: Keys that there were, and what to do now.
GONE = {
    "PROTECTED_DATA": 'SESSION_MANAGER["PROTECTED_DATA"] has been removed, because the browser '
    'could write everything that it left out: "CLIENT_DATA" names what a '
    "browser may write, and only the server writes everything else.",
}
#: What ends sessions with their user.
END_ON = ("END_ON_USER_DELETED", "END_ON_USER_DEACTIVATED", "END_ON_PASSWORD_CHANGED")
DEFAULT_THROTTLE_RATES = {
    # For the subject of an access token, and for a client's address.
    "create": "20/min",
    "create_address": "60/min",
    # For a session.
    "refresh": "60/min",
    "write": "120/min",
    "read": "600/min",
    # For a client's address: what is refused before it is known whose it is.
    "junk": "300/min",
}


@dataclass(frozen=True)
class Auth0Settings:
    """The issuer of access tokens; any OpenID provider that signs them with RS256 or ES256."""

    ISSUER: str
    AUDIENCE: tuple[str, ...]
    JWKS_URL: str
    #: Clients (``azp``) whose access tokens are accepted; None: any that the issuer has.
    AUTHORIZED_PARTIES: tuple[str, ...] | None = None
    #: Seconds by which the issuer's clock may differ.
    LEEWAY: int = 10
    #: Claim that names the tenant; Auth0's organisations.
    TENANT_CLAIM: str | None = "org_id"
    #: Seconds that a fetched key set counts as fresh.
    JWKS_TTL: int = 600
    #: Seconds that keys are used when the issuer cannot be reached.
    JWKS_MAX_STALE: int = 3600
    #: Seconds to wait for the issuer.
    TIMEOUT: float = 5.0


@dataclass(frozen=True)
class Lifetimes:
    """How long the sessions of one kind of login live; None: as all others."""

    #: Unless refreshed; by default until MAX_LIFETIME.  Cut to what the extension allows.
    TTL: timedelta | None = None
    MAX_LIFETIME: timedelta | None = None
    IDLE_TIMEOUT: timedelta | None = None


@dataclass(frozen=True)
class Settings:
    """One field per key of SESSION_MANAGER, with its default."""

    #: Database alias whose database has the extension.
    DATABASE: str = "default"
    #: Alias that notifications of ended sessions are listened to by, where DATABASE is a pooler's;
    #: with SHARDS a mapping of their aliases to such ones.
    LISTEN_DATABASE: str | Mapping[str, str] | None = None
    #: Aliases of the databases that share the sessions, or the dotted path of a function that
    #: returns them: each is of an equal share of the buckets, in this order.  None: DATABASE alone.
    SHARDS: tuple[str, ...] | str | None = None
    #: Alias of a standby that sessions are read from, or of several; with SHARDS a mapping of their
    #: aliases to such ones.  None: all is read from the primary.
    READ_DATABASE: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None
    #: Seconds that a standby may be behind to be asked; for as long a new session, and what a
    #: request has written, is read from the primary.
    READ_MAX_LAG: float = 3.0
    #: Seconds to wait for a standby before the primary is asked.
    READ_TIMEOUT: float = 1.0
    #: Schema of the extension's objects; None leaves it to search_path.
    SCHEMA: str | None = None
    #: Role that the migration grants to; None: the role that migrates, unless it is a superuser.
    GRANT_ROLE: str | None = None

    COOKIE_NAME: str | None = None
    COOKIE_SECURE: bool | None = None
    COOKIE_HOST_PREFIX: bool | None = None
    COOKIE_DOMAIN: str | None = None
    COOKIE_SAMESITE: str = "Lax"

    #: Whether sessions are bound to the user's device: "off", "offer", "require", or (the dotted
    #: path of) ``f(request, user_id)``, which returns one of these.
    DEVICE_BOUND: str | Callable[..., str] = "off"
    #: Name without prefix of the cookie with the device's proof.
    DEVICE_COOKIE_NAME: str = DEFAULT_DEVICE_COOKIE_NAME
    #: Seconds that a session which has to be bound may be used before it is.
    DEVICE_REGISTRATION_SECONDS: float = 60

    #: Field of the user model whose text is the session's user id; None: no user is loaded.
    USER_ID_FIELD: str | None = None
    #: Dotted path of ``f(user_id, session) -> user or None`` in the place of USER_ID_FIELD.
    USER_LOADER: str | None = None
    #: A user's sessions end when the user is deleted, or gets another user id ...
    END_ON_USER_DELETED: bool = True
    #: ... or is no longer active ...
    END_ON_USER_DEACTIVATED: bool = True
    #: ... and all but the one in use when the password changes.
    END_ON_PASSWORD_CHANGED: bool = True
    #: ``request.user`` is known by the session, and its row is loaded when a field is first read.
    LAZY_USER: bool = False
    #: Dotted path of ``f(request, claims) -> LoginDecision`` called at login.
    ON_LOGIN: str | None = None
    #: Dotted path of ``f(request, session, tenant_id) -> data or None``: whether the user may act
    #: for a tenant, and the session's data there.  None: nobody changes tenant.
    ON_SWITCH_TENANT: str | None = None
    #: Members of the session's data that a browser may write; all else is the server's.
    CLIENT_DATA: tuple[str, ...] = DEFAULT_CLIENT_DATA

    #: Whether clients without cookies may send the token as ``Authorization: Bearer``.
    BEARER: bool = False

    #: Number of proxies in front that append to X-Forwarded-For.
    TRUSTED_PROXIES: int = 0
    #: Whether unsafe methods need Django's CSRF token besides the check of where they come from.
    CSRF_TOKEN: bool = True
    #: Whether POST refresh replaces the token.
    ROTATE_ON_REFRESH: bool = True
    #: Seconds in the Retry-After of a 503.
    RETRY_AFTER: int = 2
    #: Bytes of a request's body.
    MAX_BODY_SIZE: int = 131072
    THROTTLE_RATES: Mapping[str, str | None] = field(
        default_factory=lambda: dict(DEFAULT_THROTTLE_RATES)
    )
    AUTH0: Auth0Settings | None = None
    #: Dotted path of a DRF authentication class that verifies a login's access token, in the place
    #: of AUTH0.
    LOGIN_AUTHENTICATION: str | None = None

    #: Sessions of django.contrib.sessions marked by import_django_sessions are taken over.
    IMPORT_DJANGO_SESSIONS: bool = False
    #: Dotted path of ``f(user, data) -> dict``: what to keep of a Django session's data.
    IMPORT_DATA: str | None = None

    #: Redis: URL without database, or None for no cache; with SHARDS a mapping of their aliases to
    #: URLs.
    REDIS_URL: str | Mapping[str, str] | None = None
    REDIS_DB: int = 1
    #: Key that seals cached values: 32 bytes as base64 or hex.  Not SECRET_KEY.
    CACHE_KEY: str | None = None
    #: File with that key, in the place of CACHE_KEY.
    CACHE_KEY_FILE: str | None = None
    #: Seconds to wait for Redis before PostgreSQL is asked.
    REDIS_TIMEOUT: float = 0.02
    #: Failures in a row that open the circuit breaker, and seconds that it stays open.
    BREAKER_FAILURES: int = 3
    BREAKER_SECONDS: float = 1.0

    #: Tests alone: sessions are kept in the memory of the process, not by the extension, whose
    #: settings these are.
    IN_MEMORY: Mapping[str, Any] | None = None

    #: Lifetime of a new session; None leaves it to the extension.
    TTL: timedelta | None = None
    #: Those of logins with remember=True, and with remember=False.
    REMEMBERED: Lifetimes = Lifetimes(TTL=timedelta(days=30))
    NOT_REMEMBERED: Lifetimes = Lifetimes()
    #: Dotted path of ``f(request, actor, user) -> bool``: whether somebody may act as a user.
    MAY_IMPERSONATE: str | None = None
    #: How long a link of links.end_session_path works.
    END_LINK_AGE: timedelta = timedelta(days=7)
    DEBUG: bool = False
    #: Whether SESSION_ENGINE is this package's.  Then Django's settings of the cookie hold for all.
    IS_ENGINE: bool = False

    @cached_property
    def is_sharded(self) -> bool:
        """Whether several databases share the sessions; the stand-in is one."""
        return self.SHARDS is not None and self.IN_MEMORY is None

    @cached_property
    def cookie_path(self) -> str:
        return django_settings.SESSION_COOKIE_PATH if self.IS_ENGINE else "/"

    @cached_property
    def cookie_httponly(self) -> bool:
        return django_settings.SESSION_COOKIE_HTTPONLY if self.IS_ENGINE else True

    @cached_property
    def cookie_secure(self) -> bool:
        return not self.DEBUG if self.COOKIE_SECURE is None else self.COOKIE_SECURE

    @cached_property
    def cookie_host_prefix(self) -> bool:
        if self.COOKIE_HOST_PREFIX is None:
            return self.cookie_secure and not self.DEBUG and self.COOKIE_DOMAIN is None
        return self.COOKIE_HOST_PREFIX

    @cached_property
    def cookie_name(self) -> str:
        """The cookie's name as it is sent, prefix included."""
        name = self.COOKIE_NAME or DEFAULT_COOKIE_NAME
        if self.cookie_host_prefix and not name.startswith(HOST_PREFIX):
            return HOST_PREFIX + name
        return name

    @cached_property
    def device_cookie_name(self) -> str:
        """The cookie with the proof of a bound session's device; prefixed as the session's is."""
        name = self.DEVICE_COOKIE_NAME
        if self.cookie_name.startswith(HOST_PREFIX) and not name.startswith(HOST_PREFIX):
            return HOST_PREFIX + name
        return name

    def device_mode(self, request: Any, user_id: str) -> str:
        """Whether a user's session is bound to a device: what DEVICE_BOUND is, or says."""
        given = self.DEVICE_BOUND
        if isinstance(given, str):
            if given in DEVICE_MODES:
                return given
            given = self.load(given)
        return checked_device_mode(given(request, user_id))

    @cached_property
    def standbys(self) -> dict[str, tuple[str, ...]]:
        """The aliases of READ_DATABASE by that of their primary."""
        given = self.READ_DATABASE
        if given is None or self.IN_MEMORY is not None:
            return {}
        if not isinstance(given, Mapping):
            given = {self.DATABASE: given}
        return {
            primary: (aliases,) if isinstance(aliases, str) else tuple(aliases)
            for primary, aliases in given.items()
        }

    @cached_property
    def stand_in(self) -> Any:
        """What answers in the place of the extension under IN_MEMORY, else None."""
        if self.IN_MEMORY is None:
            return None
        return import_string("session_manager.testing.in_memory.memory")

    @cached_property
    def actor_cookie_name(self) -> str:
        """The cookie that keeps the session of who acts as somebody else."""
        return self.cookie_name + "_actor"

    def lifetimes(self, remember: bool | None) -> Lifetimes:
        """Those of a login's sessions."""
        if remember is None:
            return Lifetimes()
        return self.REMEMBERED if remember else self.NOT_REMEMBERED

    @cached_property
    def cache_key(self) -> bytes:
        """The 32 bytes of CACHE_KEY, or of CACHE_KEY_FILE."""
        if self.CACHE_KEY is not None:
            return parse_key(self.CACHE_KEY)
        if self.CACHE_KEY_FILE is None:
            raise ImproperlyConfigured(
                'Neither SESSION_MANAGER["CACHE_KEY"] nor "CACHE_KEY_FILE" is set.'
            )
        return parse_key(Path(self.CACHE_KEY_FILE).read_text(encoding="ascii").strip())

    def load(self, path: str) -> Callable[..., Any]:
        hook = import_string(path)
        if not callable(hook):
            raise ImproperlyConfigured(f"{path} cannot be called.")
        return hook  # type: ignore[no-any-return]


def checked_device_mode(given: Any) -> str:
    """What a function of the application's has decided about a device."""
    if given not in DEVICE_MODES:
        raise ImproperlyConfigured(
            f"Whether a session is bound to a device must be one of {', '.join(DEVICE_MODES)}, "
            f"and is {given!r}."
        )
    return str(given)


def parse_key(text: str) -> bytes:
    """32 bytes given as 64 hex digits or as base64."""
    try:
        raw = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        # The value is a secret: the message says nothing of it.
        raise ImproperlyConfigured(
            'SESSION_MANAGER["CACHE_KEY"] must be 32 bytes, as 64 hex digits or as base64.'
        )
    return raw


def _auth0(given: Mapping[str, Any] | None) -> Auth0Settings | None:
    values = dict(given or {})
    domain = values.pop("DOMAIN", None) or getattr(django_settings, "AUTH0_DOMAIN", None)
    if domain and "ISSUER" not in values:
        values["ISSUER"] = f"https://{domain}/"
    if "AUDIENCE" not in values:
        values["AUDIENCE"] = getattr(django_settings, "AUTH0_AUDIENCE", None)
    if not values.get("ISSUER"):
        if given:
            raise ImproperlyConfigured('SESSION_MANAGER["AUTH0"] needs DOMAIN or ISSUER.')
        return None
    audience = values["AUDIENCE"]
    if isinstance(audience, str):
        audience = (audience,)
    if not audience:
        raise ImproperlyConfigured('SESSION_MANAGER["AUTH0"] needs AUDIENCE.')
    values["AUDIENCE"] = tuple(audience)
    parties = values.get("AUTHORIZED_PARTIES")
    if parties is not None:
        values["AUTHORIZED_PARTIES"] = (parties,) if isinstance(parties, str) else tuple(parties)
    if values.get("JWKS_URL") is None:
        values["JWKS_URL"] = values["ISSUER"].rstrip("/") + "/.well-known/jwks.json"
    _refuse_unknown(values, Auth0Settings, 'SESSION_MANAGER["AUTH0"]')
    _refuse_none(values, Auth0Settings, 'SESSION_MANAGER["AUTH0"]')
    return Auth0Settings(**values)


def _refuse_unknown(values: Mapping[str, Any], model: Any, name: str) -> None:
    unknown = set(values) - {f.name for f in fields(model)}
    if unknown:
        raise ImproperlyConfigured(f"{name} has unknown keys: {', '.join(sorted(unknown))}.")


def _refuse_none(values: Mapping[str, Any], model: Any, name: str) -> None:
    """None where it means nothing; else the first request would fail on it, oddly."""
    for f in fields(model):
        # The annotations are strings here.
        if f.name in values and values[f.name] is None and not str(f.type).endswith("| None"):
            raise ImproperlyConfigured(f'{name}["{f.name}"] must not be None.')


def _client_data(given: Any) -> tuple[str, ...]:
    # A text is a sequence of texts, too: of its letters.
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        raise ImproperlyConfigured('SESSION_MANAGER["CLIENT_DATA"] must be a list of names.')
    return tuple(given)


def _check_shards(given: dict[str, Any]) -> None:
    """Each shard has its own Redis, its own connection to listen on, and its own standbys."""
    shards = given.get("SHARDS")
    if shards is not None and not isinstance(shards, str):
        if not shards or not all(isinstance(alias, str) for alias in shards):
            raise ImproperlyConfigured('SESSION_MANAGER["SHARDS"] must be a list of aliases.')
        given["SHARDS"] = tuple(shards)
    for name in ("REDIS_URL", "LISTEN_DATABASE", "READ_DATABASE"):
        value = given.get(name)
        if value is not None and isinstance(value, Mapping) != (shards is not None):
            raise ImproperlyConfigured(
                f'SESSION_MANAGER["{name}"] must be a mapping of the aliases in SHARDS.'
                if shards is not None
                else f'SESSION_MANAGER["{name}"] is a mapping, but there are no SHARDS.'
            )


def _check_lazy_user(given: Mapping[str, Any]) -> None:
    """Without its row nothing but the end of the sessions tells that a user is gone."""
    if not given.get("LAZY_USER"):
        return
    if not given.get("USER_ID_FIELD") or given.get("USER_LOADER"):
        raise ImproperlyConfigured(
            'SESSION_MANAGER["LAZY_USER"] needs USER_ID_FIELD, and no USER_LOADER.'
        )
    off = [name for name in END_ON if not given.get(name, True)]
    if off:
        raise ImproperlyConfigured(
            f'SESSION_MANAGER["LAZY_USER"] needs {" and ".join(off)}: a request does not look '
            "whether its user may still sign in."
        )


def _check_reading(given: Mapping[str, Any]) -> None:
    aliases = given.get("READ_DATABASE")
    lists = list(aliases.values()) if isinstance(aliases, Mapping) else [aliases]
    for found in lists:
        several = isinstance(found, Sequence) and all(isinstance(alias, str) for alias in found)
        if found is not None and not several:
            raise ImproperlyConfigured(
                'SESSION_MANAGER["READ_DATABASE"] must be an alias, or a list of aliases; with '
                "SHARDS a mapping of their aliases to such ones."
            )
    for name in ("READ_MAX_LAG", "READ_TIMEOUT"):
        if not given.get(name, 1) > 0:
            raise ImproperlyConfigured(f'SESSION_MANAGER["{name}"] must be more than 0 seconds.')


def _check_device(given: Mapping[str, Any]) -> None:
    mode = given.get("DEVICE_BOUND", "off")
    is_path = isinstance(mode, str) and all(part.isidentifier() for part in mode.split("."))
    if mode not in DEVICE_MODES and not callable(mode) and not (is_path and "." in mode):
        raise ImproperlyConfigured(
            f'SESSION_MANAGER["DEVICE_BOUND"] must be one of {", ".join(DEVICE_MODES)}, or a '
            "function or its dotted path."
        )
    if not given.get("DEVICE_COOKIE_NAME", DEFAULT_DEVICE_COOKIE_NAME):
        raise ImproperlyConfigured('SESSION_MANAGER["DEVICE_COOKIE_NAME"] must not be empty.')
    seconds = given.get("DEVICE_REGISTRATION_SECONDS", 1)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ImproperlyConfigured(
            'SESSION_MANAGER["DEVICE_REGISTRATION_SECONDS"] must be more than 0 seconds.'
        )


def _duration(given: Any) -> timedelta | None:
    if given is None or isinstance(given, timedelta):
        return given
    return timedelta(seconds=given)


def _of_django(given: Mapping[str, Any]) -> dict[str, Any]:
    """What Django's settings say where request.session is this package's: one cookie, one user."""
    found: dict[str, Any] = {
        "COOKIE_HOST_PREFIX": False,
        **{name: getattr(django_settings, f"SESSION_{name}") for name in ENGINE_COOKIE},
    }
    # With None or False the attribute is left out.
    found["COOKIE_SAMESITE"] = found["COOKIE_SAMESITE"] or ""
    if given.get("USER_ID_FIELD") is None and given.get("USER_LOADER") is None:
        found["USER_ID_FIELD"] = "pk"
    return found


def _lifetimes(given: Any, name: str) -> Lifetimes:
    name = f'SESSION_MANAGER["{name}"]'
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"{name} must be a dictionary.")
    _refuse_unknown(given, Lifetimes, name)
    lifetimes = Lifetimes(**{key: _duration(value) for key, value in given.items()})
    for value in (lifetimes.TTL, lifetimes.MAX_LIFETIME, lifetimes.IDLE_TIMEOUT):
        if value is not None and value <= timedelta(0):
            raise ImproperlyConfigured(f"{name} must have positive durations.")
    return lifetimes


def load_settings() -> Settings:
    """Read Django's settings."""
    found = getattr(django_settings, "SESSION_MANAGER", {})
    if not isinstance(found, Mapping):
        raise ImproperlyConfigured("SESSION_MANAGER must be a dictionary.")
    given: dict[str, Any] = dict(found)
    for internal in ("DEBUG", "IS_ENGINE"):
        given.pop(internal, None)
    for name, message in GONE.items():
        if name in given:
            raise ImproperlyConfigured(message)
    _refuse_unknown(given, Settings, "SESSION_MANAGER")

    is_engine = getattr(django_settings, "SESSION_ENGINE", None) == ENGINE
    inherited = getattr(django_settings, "SESSION_COOKIE_NAME", DJANGO_COOKIE_NAME)
    if is_engine:
        given.update(_of_django(given))
    elif "COOKIE_NAME" not in given and inherited != DJANGO_COOKIE_NAME:
        given["COOKIE_NAME"] = inherited
    if "REDIS_DB" not in given:
        given["REDIS_DB"] = getattr(django_settings, "REDIS_SESSION_DB", 1)
    given["TTL"] = _duration(given.get("TTL", getattr(django_settings, "SESSION_TTL", None)))
    given["AUTH0"] = _auth0(given.get("AUTH0"))
    rates = given.get("THROTTLE_RATES", {})
    if rates is None:
        rates = dict.fromkeys(DEFAULT_THROTTLE_RATES)
    given["THROTTLE_RATES"] = {**DEFAULT_THROTTLE_RATES, **rates}
    _refuse_none(given, Settings, "SESSION_MANAGER")
    _check_lazy_user(given)
    _check_shards(given)
    if not isinstance(given.get("IN_MEMORY") or {}, Mapping):
        raise ImproperlyConfigured(
            'SESSION_MANAGER["IN_MEMORY"] must be a dictionary of settings of the extension.'
        )
    _check_reading(given)
    _check_device(given)
    for name in {"REMEMBERED", "NOT_REMEMBERED"} & set(given):
        given[name] = _lifetimes(given[name], name)
    if "END_LINK_AGE" in given:
        given["END_LINK_AGE"] = _duration(given["END_LINK_AGE"])
    given["CLIENT_DATA"] = _client_data(given.get("CLIENT_DATA", DEFAULT_CLIENT_DATA))
    if MEMBER in given["CLIENT_DATA"]:
        raise ImproperlyConfigured(
            f'SESSION_MANAGER["CLIENT_DATA"] must not have {MEMBER!r}, which is request.session.'
        )
    return Settings(**given, DEBUG=django_settings.DEBUG, IS_ENGINE=is_engine)


class _LazySettings:
    """``settings.NAME`` reads Django's settings when they are first needed."""

    def __init__(self) -> None:
        self._loaded: Settings | None = None

    def __getattr__(self, name: str) -> Any:
        # Another thread's reload puts a new one in its place, which must get nothing of this.
        own = self.__dict__
        if own["_loaded"] is None:
            own["_loaded"] = load_settings()
        value = getattr(own["_loaded"], name)
        # From now on found without coming here.
        own[name] = value
        return value

    def reload(self) -> None:
        self.__dict__ = {"_loaded": None}


settings: Settings = _LazySettings()  # type: ignore[assignment]

_RELOAD = {
    "AUTH0_AUDIENCE",
    "AUTH0_DOMAIN",
    "DEBUG",
    "REDIS_SESSION_DB",
    "SESSION_COOKIE_DOMAIN",
    "SESSION_COOKIE_HTTPONLY",
    "SESSION_COOKIE_NAME",
    "SESSION_COOKIE_PATH",
    "SESSION_COOKIE_SAMESITE",
    "SESSION_COOKIE_SECURE",
    "SESSION_ENGINE",
    "SESSION_MANAGER",
    "SESSION_TTL",
}


def _changed(*, setting: str, **kwargs: Any) -> None:
    if setting in _RELOAD:
        settings.reload()  # type: ignore[attr-defined]


setting_changed.connect(_changed, dispatch_uid="session_manager.conf")
