"""System checks.

Those of the settings run with every ``manage.py check``.  Those that ask PostgreSQL and Redis are
database checks, which Django runs with ``manage.py check --database default`` and before migrating.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import Error as DBError
from django.db import connections
from django.urls import reverse
from django.utils.module_loading import import_string
from rest_framework.settings import api_settings

from . import standby_checks
from .authentication import SessionAuthentication
from .conf import DEFAULT_THROTTLE_RATES, DEVICE_MODES, ENGINE, ENGINE_COOKIE, settings
from .exceptions import StoreUnavailable
from .management import grants
from .management.test_databases import under_test
from .reporting import ExceptionReporterFilter
from .shard_checks import fleet_problems
from .store.database import function
from .store.shards import all_aliases

TAG = "session_manager"
#: Versions of the extension that this package works with: this major version.
MAJOR = "1"

REDIS_NAMES = ("REDIS_DB", "CACHE_KEY", "CACHE_KEY_FILE", "REDIS_TIMEOUT")

OURS = "session_manager.middleware.SessionMiddleware"
OUR_USERS = "session_manager.middleware.AuthenticationMiddleware"
DJANGO_USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"
UPDATE_CACHE = "django.middleware.cache.UpdateCacheMiddleware"
DJANGO_SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
REQUEST_SESSIONS = "session_manager.middleware.RequestSessionMiddleware"


#: Chromium signs six times in nine minutes, and begins two minutes before a proof ends.
SHORTEST_PROOF = timedelta(seconds=240)


@register(TAG)
def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    try:
        settings.COOKIE_NAME  # noqa: B018 - reads the settings
    except (ImproperlyConfigured, TypeError, ValueError) as error:
        return [
            Error(
                f"The settings of session_manager cannot be used: {error}",
                hint="docs/django.md has the table of settings.",
                id="session_manager.E001",
            )
        ]
    return [
        *_database(),
        *_shards(),
        *standby_checks.setting_problems(),
        *_hooks(),
        *_user_id_field(),
        *_first_login(),
        *_throttle_rates(),
        *_unused_redis(),
        *_in_memory(),
        *_cookie(),
        *_device(),
        *_engine(),
        *_middleware(),
        *_users(),
        *_proxies(),
        *_cache_key(),
        *_reports(),
    ]


def _database() -> Iterator[CheckMessage]:
    listen = settings.LISTEN_DATABASE
    named = [("DATABASE", settings.DATABASE)]
    named += [
        ("LISTEN_DATABASE", alias)
        for alias in (listen.values() if isinstance(listen, Mapping) else filter(None, [listen]))
    ]
    for name, alias in named:
        if alias not in connections:
            yield Error(
                f'SESSION_MANAGER["{name}"] is {alias!r}, which is not in DATABASES.',
                hint="Name the alias of the database with the extension.",
                id="session_manager.E011",
            )


def _shards() -> Iterator[CheckMessage]:
    if not settings.is_sharded:
        return
    try:
        aliases = all_aliases()
    except (ImproperlyConfigured, StoreUnavailable) as error:
        yield Error(
            f"The shards are not known: {error}",
            hint='Set SESSION_MANAGER["SHARDS"] to a list of aliases in DATABASES, or to the '
            "dotted path of a function that returns one.",
            id="session_manager.E070",
        )
        return
    for name in ("REDIS_URL", "LISTEN_DATABASE", "READ_DATABASE"):
        given = getattr(settings, name)
        odd = set(given or {}) - set(aliases)
        if odd and not isinstance(settings.SHARDS, str):
            yield Error(
                f'SESSION_MANAGER["{name}"] has {", ".join(sorted(odd))}, which SHARDS does not.',
                hint="Its keys are the aliases in SHARDS.",
                id="session_manager.E071",
            )
    atomic = [alias for alias in aliases if connections[alias].settings_dict["ATOMIC_REQUESTS"]]
    if atomic:
        yield Error(
            f"ATOMIC_REQUESTS is on for {', '.join(atomic)}, which SHARDS has: each request would "
            "begin a transaction on each of them, and none would be served while one is down.",
            hint="Set it for the databases of the application alone.",
            id="session_manager.E072",
        )


def _hooks() -> Iterator[CheckMessage]:
    path = settings.LOGIN_AUTHENTICATION
    if path is not None:
        try:
            good = callable(getattr(import_string(path), "authenticate", None))
        except ImportError:
            good = False
        if not good:
            yield Error(
                f'SESSION_MANAGER["LOGIN_AUTHENTICATION"] names {path!r}, which is not an '
                "authentication class.",
                hint="Set it to the dotted path of a class, as in DEFAULT_AUTHENTICATION_CLASSES.",
                id="session_manager.E002",
            )
    for name in ("USER_LOADER", "ON_LOGIN", "ON_SWITCH_TENANT", "MAY_IMPERSONATE", "IMPORT_DATA"):
        path = getattr(settings, name)
        if path is None:
            continue
        try:
            good = callable(import_string(path))
        except ImportError:
            good = False
        if not good:
            yield Error(
                f'SESSION_MANAGER["{name}"] names {path!r}, which cannot be called.',
                hint="Set it to the dotted path of a function.",
                id="session_manager.E002",
            )


def _user_id_field() -> Iterator[CheckMessage]:
    name = settings.USER_ID_FIELD
    if name is None or name == "pk":
        return
    meta = get_user_model()._meta
    try:
        field = meta.get_field(name)
    except FieldDoesNotExist:
        problem = "is not a field of the user model"
    else:
        alone = {c.fields for c in meta.total_unique_constraints}
        if getattr(field, "unique", False) or (name,) in alone:
            return
        problem = "is not unique: one session could belong to several users"
    yield Error(
        f'SESSION_MANAGER["USER_ID_FIELD"] is {name!r}, which {problem}.',
        hint='Name a field with unique=True that users cannot set themselves, or "pk".',
        id="session_manager.E022",
    )


def _routed() -> bool:
    """Whether browsers can reach the endpoint that takes access tokens."""
    try:
        reverse("session_manager:create")
    except Exception:  # Not there, or a URLconf that Django's own checks find fault with.
        return False
    return True


def _first_login() -> Iterator[CheckMessage]:
    if not _routed():
        return
    if settings.LOGIN_AUTHENTICATION:
        # It finds the users, or makes them.
        return
    if settings.AUTH0 is None:
        yield Warning(
            "The endpoints are routed, but AUTH0 is not set: create/ would fail.",
            hint='Set SESSION_MANAGER["AUTH0"] = {"DOMAIN": ..., "AUDIENCE": ...}, or set '
            '"LOGIN_AUTHENTICATION" to your own class for access tokens, or remove '
            "session_manager.urls and use only session_manager.login.log_in.",
            id="session_manager.W024",
        )
    elif settings.USER_ID_FIELD and not (settings.USER_LOADER or settings.ON_LOGIN):
        yield Warning(
            "USER_ID_FIELD is set, but not ON_LOGIN: at their first login, users who are not "
            "in the table of users get 403 user_not_found.",
            hint='Set SESSION_MANAGER["ON_LOGIN"] to a function that creates the user, or '
            "silence this check if users are created elsewhere.",
            id="session_manager.W025",
        )


def _throttle_rates() -> Iterator[CheckMessage]:
    from .api.throttling import parse_rate

    for name, rate in settings.THROTTLE_RATES.items():
        try:
            good = name in DEFAULT_THROTTLE_RATES and (rate is None or bool(parse_rate(rate)))
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            good = False
        if not good:
            yield Error(
                f"THROTTLE_RATES has {name!r}: {rate!r}.",
                hint=f'One of {", ".join(DEFAULT_THROTTLE_RATES)}, with a rate such as "20/min", '
                "or None for no limit.",
                id="session_manager.E026",
            )


def _unused_redis() -> Iterator[CheckMessage]:
    if settings.REDIS_URL is not None:
        return
    ours = getattr(django_settings, "SESSION_MANAGER", {})
    names = [f'SESSION_MANAGER["{n}"]' for n in REDIS_NAMES if ours.get(n) is not None]
    if hasattr(django_settings, "REDIS_SESSION_DB"):
        names.append("REDIS_SESSION_DB")
    if names:
        yield Warning(
            f"There is no cache: REDIS_URL is not set, but {', '.join(names)}.",
            hint='Set SESSION_MANAGER["REDIS_URL"], or delete the settings for Redis.',
            id="session_manager.W027",
        )


def _in_memory() -> Iterator[CheckMessage]:
    if settings.IN_MEMORY is None or under_test():
        return
    yield Error(
        "Sessions are kept in the memory of the process: IN_MEMORY is set outside of tests, where "
        "no session can be created or read.",
        hint='Set SESSION_MANAGER["IN_MEMORY"] in the settings of the tests alone.',
        id="session_manager.E040",
    )


def _which_cookie_line() -> str:
    if "COOKIE_NAME" in getattr(django_settings, "SESSION_MANAGER", {}):
        return 'Delete "COOKIE_NAME" from SESSION_MANAGER.'
    return (
        f"Delete SESSION_COOKIE_NAME = {django_settings.SESSION_COOKIE_NAME!r} from the "
        "settings: both Django's cookie and the package's would have this name."
    )


def _engine() -> Iterator[CheckMessage]:
    chain = django_settings.MIDDLEWARE
    if not settings.IS_ENGINE:
        if REQUEST_SESSIONS in chain:
            yield Error(
                f"RequestSessionMiddleware is in MIDDLEWARE, but SESSION_ENGINE is not {ENGINE!r}.",
                hint=f"Set SESSION_ENGINE = {ENGINE!r}, or use {DJANGO_SESSIONS!r} instead.",
                id="session_manager.E041",
            )
        return
    ours = getattr(django_settings, "SESSION_MANAGER", {})
    differing = [
        name
        for name in ENGINE_COOKIE
        if name in ours and ours[name] != getattr(django_settings, f"SESSION_{name}")
    ]
    if ours.get("COOKIE_HOST_PREFIX"):
        differing.append("COOKIE_HOST_PREFIX")
    if differing:
        yield Error(
            f"SESSION_MANAGER has {', '.join(differing)}, but with this SESSION_ENGINE the cookie "
            "is request.session's, and Django's settings apply.",
            hint='Use SESSION_COOKIE_NAME and so on; the name may begin with "__Host-".',
            id="session_manager.E042",
        )
    if DJANGO_SESSIONS in chain:
        yield Warning(
            "MIDDLEWARE has Django's SessionMiddleware. Sessions work with it, but they are stored "
            "without the client's IP address and browser: the list of a user's devices cannot tell "
            "them apart, and no login is reported as coming from a new device. While PostgreSQL "
            "cannot be reached, a request that changes its session gets 500 instead of 503.",
            hint=f"In MIDDLEWARE, replace {DJANGO_SESSIONS!r} with {REQUEST_SESSIONS!r}.",
            id="session_manager.W043",
        )


def _cookie() -> Iterator[CheckMessage]:
    if (
        not settings.IS_ENGINE
        and DJANGO_SESSIONS in django_settings.MIDDLEWARE
        and settings.cookie_name == django_settings.SESSION_COOKIE_NAME
    ):
        yield Error(
            f"session_manager and django.contrib.sessions both use the cookie "
            f"{settings.cookie_name!r}.",
            hint=_which_cookie_line(),
            id="session_manager.E003",
        )
    if not settings.cookie_secure and not settings.DEBUG:
        yield Warning(
            "The session cookie is sent without encryption: COOKIE_SECURE is off.",
            hint="Serve over HTTPS and set SESSION_COOKIE_SECURE = True."
            if settings.IS_ENGINE
            else 'Serve over HTTPS and remove "COOKIE_SECURE" from SESSION_MANAGER.',
            id="session_manager.W004",
        )
    if settings.cookie_host_prefix and (not settings.cookie_secure or settings.COOKIE_DOMAIN):
        yield Error(
            "Browsers refuse the cookie: __Host- requires Secure and no Domain.",
            hint='Set "COOKIE_HOST_PREFIX" to False, or remove COOKIE_DOMAIN.',
            id="session_manager.E005",
        )
    samesite = str(settings.COOKIE_SAMESITE).lower()
    # With False, or None, Django leaves the attribute out.
    left_out = settings.IS_ENGINE and not settings.COOKIE_SAMESITE
    known = left_out or samesite in ("lax", "strict", "none")
    if not known or (samesite == "none" and not left_out and not settings.cookie_secure):
        yield Error(
            f"COOKIE_SAMESITE is {settings.COOKIE_SAMESITE!r}.",
            hint='Use "Lax"; "None" needs a secure cookie.',
            id="session_manager.E006",
        )


def _device() -> Iterator[CheckMessage]:
    cookies = [settings.cookie_name, settings.actor_cookie_name]
    if DJANGO_SESSIONS in django_settings.MIDDLEWARE:
        cookies.append(django_settings.SESSION_COOKIE_NAME)
    if settings.device_cookie_name in cookies:
        yield Error(
            f"The proof of a device is kept in the cookie {settings.device_cookie_name!r}, which "
            "keeps a session.",
            hint='Give SESSION_MANAGER["DEVICE_COOKIE_NAME"] another name.',
            id="session_manager.E090",
        )
    mode = settings.DEVICE_BOUND
    if mode == "off":
        return
    if isinstance(mode, str) and mode not in DEVICE_MODES:
        try:
            good = callable(import_string(mode))
        except ImportError:
            good = False
        if not good:
            yield Error(
                f'SESSION_MANAGER["DEVICE_BOUND"] names {mode!r}, which cannot be called.',
                hint=f"Use one of {', '.join(DEVICE_MODES)}, or the dotted path of a function.",
                id="session_manager.E002",
            )
    try:
        reverse("session_manager:device-register")
    except Exception:  # As in _routed.
        yield Error(
            "Sessions are to be bound to devices, but the endpoints for that are not routed.",
            hint='Add path("api/sessions/", include("session_manager.urls")) to the URLconf, or '
            'set SESSION_MANAGER["DEVICE_BOUND"] to "off".',
            id="session_manager.E091",
        )
    if not settings.cookie_secure:
        kind, number = (Warning, "W092") if settings.DEBUG else (Error, "E092")
        yield kind(
            "Browsers bind sessions to devices over HTTPS alone, and the session cookie is not "
            "secure: COOKIE_SECURE is off.",
            hint='Serve over HTTPS with secure cookies, or set SESSION_MANAGER["DEVICE_BOUND"] to '
            '"off" here.',
            id=f"session_manager.{number}",
        )
    chain = django_settings.MIDDLEWARE
    if settings.IS_ENGINE and REQUEST_SESSIONS not in chain:
        yield Error(
            "Sessions are to be bound to devices, but without RequestSessionMiddleware "
            "request.session knows nothing of the proof: who is bound would be signed out.",
            hint=f"In MIDDLEWARE, use {REQUEST_SESSIONS!r} in the place of {DJANGO_SESSIONS!r}.",
            id="session_manager.E093",
        )


def _middleware() -> list[CheckMessage]:
    chain = list(django_settings.MIDDLEWARE)
    if UPDATE_CACHE in chain and any(
        name in chain and chain.index(name) < chain.index(UPDATE_CACHE)
        for name in (OURS, REQUEST_SESSIONS)
    ):
        return [
            Error(
                "SessionMiddleware comes before UpdateCacheMiddleware: no page that uses the "
                "session could be cached, and its headers would come too late.",
                hint="Put UpdateCacheMiddleware first in MIDDLEWARE, as Django's docs say.",
                id="session_manager.E008",
            )
        ]
    if settings.IMPORT_DJANGO_SESSIONS and OURS not in chain and REQUEST_SESSIONS not in chain:
        return [
            Error(
                "IMPORT_DJANGO_SESSIONS is on, but SessionMiddleware is not in MIDDLEWARE.",
                hint=f"Add {OURS!r}: it gives the browser the new cookie.",
                id="session_manager.E007",
            )
        ]
    return []


def _users() -> Iterator[CheckMessage]:
    chain = list(django_settings.MIDDLEWARE)
    if OUR_USERS in chain:
        first = [name for name in (OURS, DJANGO_USERS) if name in chain]
        if any(chain.index(name) > chain.index(OUR_USERS) for name in first):
            yield Error(
                "session_manager's AuthenticationMiddleware comes too early: request.user "
                "would not be the session's user.",
                hint=f"Put {OUR_USERS!r} after {' and '.join(map(repr, first))}.",
                id="session_manager.E023",
            )
    elif (
        settings.LAZY_USER
        and DJANGO_USERS in chain
        and not any(
            isinstance(found, type) and issubclass(found, SessionAuthentication)
            for found in cast("list[object]", api_settings.DEFAULT_AUTHENTICATION_CLASSES)
        )
    ):
        yield Warning(
            "LAZY_USER is on, but request.user is that of Django's AuthenticationMiddleware, "
            "which loads the user's row for each request.",
            hint=f"Add {OUR_USERS!r} behind {DJANGO_USERS!r}.",
            id="session_manager.W045",
        )


def _proxies() -> list[CheckMessage]:
    behind = django_settings.SECURE_PROXY_SSL_HEADER or django_settings.USE_X_FORWARDED_HOST
    if behind and settings.TRUSTED_PROXIES == 0:
        return [
            Warning(
                "The application is behind a proxy, but TRUSTED_PROXIES is 0: every client "
                "appears to have the proxy's address, and if that is private, nothing is "
                "throttled by address.",
                hint='Set SESSION_MANAGER["TRUSTED_PROXIES"] to the number of proxies that append '
                "to X-Forwarded-For.",
                id="session_manager.W009",
            )
        ]
    return []


def _cache_key() -> list[CheckMessage]:
    if settings.REDIS_URL is None:
        return []
    try:
        settings.cache_key  # noqa: B018 - reads the key
    except (ImproperlyConfigured, OSError, ValueError) as error:
        return [
            Error(
                f"Values in Redis cannot be sealed: {error}",
                hint="Create a key with: openssl rand -hex 32. Do not use SECRET_KEY for it.",
                id="session_manager.E010",
            )
        ]
    path = settings.CACHE_KEY_FILE
    if settings.CACHE_KEY is None and path and Path(path).stat().st_mode & 0o077:
        return [
            Warning(
                "Users other than the application's may read CACHE_KEY_FILE.",
                hint=f"chmod 600 {path}",
                id="session_manager.W020",
            )
        ]
    return []


def _reports() -> list[CheckMessage]:
    if not django_settings.ADMINS:
        return []
    path = django_settings.DEFAULT_EXCEPTION_REPORTER_FILTER
    if issubclass(import_string(path), ExceptionReporterFilter):
        return []
    return [
        Warning(
            "Error reports, which are mailed to ADMINS, contain the session's cookie.",
            hint='Set DEFAULT_EXCEPTION_REPORTER_FILTER to "session_manager.reporting.'
            'ExceptionReporterFilter", or to a subclass of it.',
            id="session_manager.W021",
        )
    ]


@register(TAG, Tags.database)
def check_servers(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    try:
        aliases = all_aliases()
    except (ImproperlyConfigured, TypeError, ValueError, StoreUnavailable):
        return []  # E001, or E070, has said so
    # As Django's own: not unless asked.  Else every command would ask the servers first.
    asked = [alias for alias in aliases if alias in (databases or ())]
    if settings.stand_in is not None and under_test():
        return []
    found = [message for alias in asked for message in _server(alias)]
    if settings.is_sharded and not any(isinstance(message, Error) for message in found):
        found += fleet_problems(asked)
    return found


def _server(alias: str) -> list[CheckMessage]:
    if connections[alias].vendor != "postgresql":
        if under_test():
            return [
                Warning(
                    f"The tests run on {connections[alias].display_name}: none of them can "
                    "create or read a session.",
                    hint="Sessions need PostgreSQL. docs/django.md, Testing your application, "
                    "describes a test database that has them.",
                    id="session_manager.W029",
                )
            ]
        return [
            Error(
                f"The database {alias!r} is not PostgreSQL.",
                hint='Set SESSION_MANAGER["DATABASE"] to the alias of the one with the extension.',
                id="session_manager.E011",
            )
        ]
    try:
        found = [*_extension(alias), *standby_checks.server_problems(alias)]
    except DBError as error:
        found = [
            Warning(
                f"The database {alias!r} cannot be queried: {error}".strip(),
                hint="Start PostgreSQL, and check DATABASES.",
                id="session_manager.W012",
            )
        ]
    return found + _redis(alias)


def _extension(alias: str) -> Iterator[CheckMessage]:
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT extversion, default_version, (SELECT rolsuper FROM pg_roles"
            " WHERE rolname = current_user)"
            " FROM pg_available_extensions LEFT JOIN pg_extension ON extname = name"
            " WHERE name = 'session_manager'"
        )
        row = cursor.fetchone()
        if row is None or row[0] is None:
            yield _missing(alias, available=row is not None)
            return
        version, default, superuser = row
        if version.split(".")[0] != MAJOR:
            yield Error(
                f"The extension session_manager is of version {version}; "
                f"this package works with {MAJOR}.x.",
                hint="Install the package that belongs to the extension, or update the "
                "extension: ALTER EXTENSION session_manager UPDATE.",
                id="session_manager.E014",
            )
            return
        if version != default:
            yield Warning(
                f"The extension session_manager is of version {version}, but {default} is "
                "installed on the server.",
                hint="As a superuser: ALTER EXTENSION session_manager UPDATE.",
                id="session_manager.W015",
            )
        if superuser:
            yield Warning(
                "The application connects as a superuser, who bypasses all privileges and "
                "row-level security.",
                hint="Connect as a role of the application's own and name it in GRANT_ROLE "
                "when migrating.",
                id="session_manager.W016",
            )
        if apps.is_installed("channels"):
            cursor.execute("SELECT current_setting('session_manager.notify', true)")
            if cursor.fetchone()[0] != "on":
                yield Warning(
                    "WebSockets notice up to a minute late that a session was revoked: "
                    "session_manager.notify is off.",
                    hint="Set session_manager.notify = on on the server, or silence this check if "
                    "no WebSocket has a session.",
                    id="session_manager.W060",
                )
        have = grants.rights(cursor)
        if have is None or not have.call:
            yield Error(
                "The application's role may not use the extension.",
                hint=f"Run: {grants.command(alias)}",
                id="session_manager.E017",
            )
            return
        if not have.found:
            yield Error(
                f"The extension is in the schema {have.schema!r}, which is not searched.",
                hint=f'Set SESSION_MANAGER["SCHEMA"] to {have.schema!r}.',
                id="session_manager.E017",
            )
            return
        if not have.read:
            yield Warning(
                "The application's role may not read the columns that the models, the admin and "
                "the command sessions show.",
                hint=f"Run: {grants.command(alias)} or, if it does not need to read them, "
                "silence this check.",
                id="session_manager.W028",
            )
            return
        cursor.execute(
            f"SELECT EXISTS (SELECT FROM {function('session_keys')} WHERE state = 'active')"
        )
        if not cursor.fetchone()[0]:
            yield Error(
                "The extension has no active key: no session can be created.",
                hint="Set session_manager.key_file on the server, unless it is set. Then run: "
                f"{grants.command(alias)}",
                id="session_manager.E018",
            )
        yield from _lifetimes(cursor)
        if settings.DEVICE_BOUND != "off":
            yield from _proofs(cursor)


def _proofs(cursor: Any) -> Iterator[CheckMessage]:
    # Known once a function has been called, as in _lifetimes.
    cursor.execute("SELECT current_setting('session_manager.device_proof_lifetime')::interval")
    (lifetime,) = cursor.fetchone()
    if lifetime < SHORTEST_PROOF:
        yield Warning(
            f"Proofs of devices are valid for {lifetime.total_seconds():.0f} s: browsers renew "
            "them only a few times in ten minutes, and then are refused.",
            hint="Let session_manager.device_proof_lifetime be "
            f"{SHORTEST_PROOF.total_seconds():.0f} s or longer on the server.",
            id="session_manager.W094",
        )


def _lifetimes(cursor: Any) -> Iterator[CheckMessage]:
    # The settings are known once a function of the extension has been called.
    cursor.execute(
        f"SELECT CASE WHEN {function('session_bucket')}(''::text) IS NOT NULL"
        " THEN current_setting('session_manager.max_lifetime')::interval END,"
        " current_setting('session_manager.idle_timeout')::interval"
    )
    longest, idle = cursor.fetchone()
    limits = {"MAX_LIFETIME": longest, "IDLE_TIMEOUT": idle or longest}
    for kind in ("REMEMBERED", "NOT_REMEMBERED"):
        for name, limit in limits.items():
            value = getattr(getattr(settings, kind), name)
            if value is not None and value > limit:
                yield Error(
                    f'SESSION_MANAGER["{kind}"]["{name}"] is longer than the extension allows, '
                    f"which is {limit}: such a login fails.",
                    hint="Shorten it, or let session_manager.max_lifetime and "
                    "session_manager.idle_timeout be longer on the server.",
                    id="session_manager.E044",
                )


def _missing(alias: str, *, available: bool) -> CheckMessage:
    """Before the first migration this is how it must be; afterwards it is an error."""
    from django.db.migrations.recorder import MigrationRecorder

    applied = MigrationRecorder(connections[alias]).applied_migrations()
    kind = Error if ("session_manager", "0001_initial") in applied else Warning
    hint = (
        f"Run: {grants.command(alias)}"
        if available
        else "Install the extension on the server first: make && make install."
    )
    return kind(
        f"The database {alias!r} does not have the extension session_manager.",
        hint=hint,
        id="session_manager.E013" if kind is Error else "session_manager.W013",
    )


def _redis(alias: str) -> list[CheckMessage]:
    from .store.cache import redis_problem

    problem = redis_problem(alias)
    if problem is None:
        return []
    return [
        Warning(
            f"Redis is not used: {problem}",
            hint="Meanwhile sessions are read from PostgreSQL. Check REDIS_URL, REDIS_DB and "
            "the rights of its user, and session_manager.redis_mode on the server.",
            id="session_manager.W019",
        )
    ]
