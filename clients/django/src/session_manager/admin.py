"""Sessions in Django's admin: list, filter, search by user, history, revoke; an overview.

Nothing can be added, changed or deleted here.  Who has the permission "Can revoke session" may end
sessions; who did it is in the admin's own log, as the audit trail knows no administrators.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, cast
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connections
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.text import capfirst, smart_split, unescape_string_literal
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .conf import settings
from .exceptions import InvalidArgument
from .local_time import local_time
from .models import SessionEvent, SessionOverview, UserSession
from .overview import DAYS, overview
from .services import session_service
from .shards import alias_of_id, alias_of_user
from .store.aliases import using
from .store.relations import attach_users, users_apart
from .store.relations import user_ids as user_ids_of
from .store.shards import all_aliases

REVOKE = "session_manager.revoke_usersession"
EVENTS = (
    "created",
    "elevated",
    "evicted",
    "invalidated",
    "token_reused",
    "device_bound",
    "device_proof_failed",
    "device_proof_skipped",
    "client_changed",
    "rejected",
    "bind_failed",
    "corrupt",
    "erased",
    "key_revoked",
)
#: In an address: the alias of the database that is shown, where there are several.
DATABASE = "database"
#: Events shown of one session.
HISTORY = 200
#: Users looked for in another database by one word of a search.
USERS = 1000


# What a user agent says of itself; the first that is in it counts.
BROWSERS = {
    "Edg": "Edge",
    "OPR": "Opera",
    "Firefox": "Firefox",
    "FxiOS": "Firefox",
    "CriOS": "Chrome",
    "Chrome": "Chrome",
    "Safari": "Safari",
    "AppleWebKit": "WebKit",
}
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}


def describe_agent(agent: str) -> str:
    """A user agent in two words, or its beginning."""
    browser = next((name for sign, name in BROWSERS.items() if sign in agent), None)
    system = next((name for sign, name in SYSTEMS.items() if sign in agent), None)
    if browser and system:
        return f"{browser}, {system}"
    return agent if len(agent) <= 24 else f"{agent[:23]}…"


def short_time(value: datetime) -> str:
    text = date_format(local_time(value), "Y-m-d H:i")
    return format_html('<span class="sm-moment">{}</span>', text)


class StateFilter(admin.SimpleListFilter):
    """Live sessions, or those that have ended and are not deleted yet."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
        return [("live", _("live")), ("ended", _("ended"))]

    def queryset(self, request: Any, queryset: Any) -> Any:
        live = UserSession.objects.active().values("pk")
        if self.value() == "live":
            return queryset.filter(pk__in=live)
        if self.value() == "ended":
            return queryset.exclude(pk__in=live)
        return queryset


class DeviceFilter(admin.SimpleListFilter):
    """Sessions that are bound to a device, or those that are not."""

    title = _("bound to a device")
    parameter_name = "bound"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("yes")), ("no", _("no"))]

    def queryset(self, request: Any, queryset: Any) -> Any:
        if self.value() not in ("yes", "no"):
            return queryset
        return queryset.filter(device_bound_at__isnull=self.value() == "no")


class ShardFilter(admin.SimpleListFilter):
    """Which of several databases is shown: no query reads them all.

    Unless one is chosen, that of whom or what is searched for, else the first.
    """

    title = _("database")
    parameter_name = DATABASE

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
        self.searched = request.GET.get(SEARCH_VAR, "").strip()
        return [(alias, alias) for alias in all_aliases()] if settings.is_sharded else []

    def alias(self) -> str:
        chosen = self.value()
        known = all_aliases()
        return chosen if chosen in known else _alias_of_search(self.searched) or known[0]

    def choices(self, changelist: Any) -> Iterator[Any]:
        shown = self.alias()
        for alias, title in self.lookup_choices:
            yield {
                "selected": alias == shown,
                "query_string": changelist.get_query_string({DATABASE: alias}),
                "display": title,
            }

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.using(self.alias())


def _alias_of_search(text: str) -> str | None:
    """The database of the session or user that is searched for, if it is one, and named in full."""
    if not text:
        return None
    with suppress(ValueError):
        return alias_of_id(text)
    user_ids = {text}
    fields = _user_search_fields()
    if fields:
        matches = reduce(or_, (Q(**{field: text}) for field in fields))
        found = get_user_model()._default_manager.filter(matches).order_by("pk")
        user_ids.update(user_ids_of(found[:2]))
    aliases = {
        alias_of_user(user_id)
        for user_id in user_ids
        if UserSession.objects.for_user(user_id).exists()
    }
    return aliases.pop() if len(aliases) == 1 else None


def _user_search_fields() -> list[str]:
    """What of the application's user can be searched for: name and e-mail, if it has them."""
    if settings.USER_ID_FIELD is None:
        return []
    model: Any = get_user_model()
    names = {field.name for field in model._meta.get_fields()}
    wanted = (model.USERNAME_FIELD, getattr(model, "EMAIL_FIELD", "email"))
    return [f"{name}__icontains" for name in dict.fromkeys(wanted) if name in names]


class EventFilter(admin.SimpleListFilter):
    """Events of one type; the types are known, so that the table need not be read for them."""

    title = _("event")
    parameter_name = "event"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
        return [(event, event) for event in EVENTS]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(event=self.value()) if self.value() else queryset


class _ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        users = [] if users_apart() else [f"user__{field}" for field in _user_search_fields()]
        return ["user_id__icontains", "=tenant_id", "=ip", *users]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        fields = _user_search_fields()
        if not (fields and users_apart()):
            return super().get_search_results(request, queryset, search_term)
        # Each word in the session or in its user, who is looked for first.
        for word in smart_split(search_term):
            found, _distinct = super().get_search_results(request, queryset, word)
            text = unescape_string_literal(word) if word[0] == word[-1:] in ("'", '"') else word
            matches = reduce(or_, (Q(**{field: text}) for field in fields))
            users = get_user_model()._default_manager.filter(matches).order_by("pk")
            queryset = queryset.filter(
                Q(pk__in=found.values("pk")) | Q(user_id__in=user_ids_of(users[:USERS]))
            )
        return queryset, False


class _List(ChangeList):
    """A page of one database, which it names where there are several."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if settings.is_sharded:
            self.title = _("%(title)s: database %(alias)s of %(all)s") % {
                "title": self.title,
                "alias": self.queryset.db,
                "all": ", ".join(all_aliases()),
            }


class SessionList(_List):
    """A page of sessions with their users, wherever those are."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if settings.USER_ID_FIELD is not None and users_apart():
            # The queryset keeps what it has read.
            attach_users(self.result_list)


@admin.register(UserSession)
class UserSessionAdmin(_ReadOnlyAdmin):
    list_display = (
        "short_id",
        "owner",
        "tenant_id",
        "state",
        "ip",
        "device",
        "created",
        "last_seen",
    )
    # No filter that would read the whole table to find its choices.
    list_filter = (ShardFilter, StateFilter, DeviceFilter, "created_at", "last_seen_at")
    list_per_page = 50
    ordering = ("-session_id",)
    show_full_result_count = False
    actions = ("revoke", "revoke_all")
    change_form_template = "admin/session_manager/usersession/change_form.html"
    fieldsets = (
        (None, {"fields": ("session_id", "owner", "user_id", "actor_id", "tenant_id", "state")}),
        (
            _("Life"),
            {
                "fields": (
                    "created_at",
                    "authenticated_at",
                    "last_seen_at",
                    "expires_at",
                    "absolute_expires_at",
                    "idle_timeout",
                    "rotated_at",
                    "revoked_at",
                    "revoked_reason",
                )
            },
        ),
        (
            _("Client"),
            {"fields": ("ip", "user_agent", "device_bound_at", "device_proved_at")},
        ),
        (_("Data"), {"fields": ("version", "key_id")}),
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """A whole session id is looked up by key."""
        try:
            session_id = UserSession._meta.pk.to_python(search_term.strip())
        except ValidationError:
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(pk=session_id), False

    def get_list_select_related(self, request: HttpRequest) -> tuple[str, ...]:
        return () if settings.USER_ID_FIELD is None or users_apart() else ("user",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return SessionList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        live = UserSession.objects.active().filter(pk=OuterRef("pk"))
        queryset = super().get_queryset(request)
        return cast("QuerySet[Any]", queryset.annotate(is_live=Exists(live)))

    @admin.display(description=_("session"), ordering="session_id")
    def short_id(self, session: UserSession) -> str:
        text = str(session.pk)
        return format_html('<span title="{}">{}…{}</span>', text, text[:8], text[-12:-4])

    @admin.display(description=_("user"), ordering="user_id")
    def owner(self, session: UserSession) -> str:
        user = None if settings.USER_ID_FIELD is None else session.user
        return session.user_id if user is None else str(user)

    @admin.display(description=_("device"))
    def device(self, session: UserSession) -> str:
        agent = session.user_agent or ""
        text = format_html('<span title="{}">{}</span>', agent, describe_agent(agent))
        if session.device_bound_at is None:
            return text
        return format_html('{} <span class="sm-state sm-bound">{}</span>', text, _("bound"))

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, session: UserSession) -> str:
        return short_time(session.created_at)

    @admin.display(description=_("last seen"), ordering="last_seen_at")
    def last_seen(self, session: UserSession) -> str:
        return short_time(session.last_seen_at)

    @admin.display(description=_("state"))
    def state(self, session: Any) -> str:
        if session.is_live:
            return format_html('<span class="sm-state sm-live">{}</span>', _("live"))
        reason = session.revoked_reason or _("expired")
        return format_html('<span class="sm-state sm-ended">{}</span>', reason)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(REVOKE)

    @admin.action(description=_("Revoke the selected sessions"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[UserSession]) -> None:
        count = 0
        for session in queryset:
            if session_service.invalidate_id(session.pk, session.user_id, "admin"):
                self.log_revocation(request, session, "Revoked.")
                count += 1
        self.report(request, count)

    @admin.action(
        description=_("Revoke all sessions of the selected sessions' users"), permissions=["revoke"]
    )
    def revoke_all(self, request: HttpRequest, queryset: QuerySet[UserSession]) -> None:
        count = 0
        first = {session.user_id: session for session in queryset}
        for user_id, session in first.items():
            ended = session_service.invalidate_all(user_id, reason="admin")
            self.log_revocation(request, session, f"Revoked all {ended} sessions of {user_id}.")
            count += ended
        self.report(request, count)

    def log_revocation(self, request: HttpRequest, session: UserSession, message: str) -> None:
        """Who did it."""
        LogEntry.objects.create(
            user_id=cast(int, request.user.pk),
            content_type_id=ContentType.objects.get_for_model(UserSession).pk,
            object_id=str(session.pk),
            object_repr=f"{session.user_id} {session.pk}"[:200],
            action_flag=CHANGE,
            change_message=message,
        )

    def report(self, request: HttpRequest, count: int) -> None:
        text = ngettext("%d session has been ended.", "%d sessions have been ended.", count)
        self.message_user(request, text % count, messages.SUCCESS if count else messages.WARNING)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The session, its history, and buttons to revoke it or all of its user's."""
        session: Any = self.get_object(request, object_id)
        if request.method == "POST" and session is not None:
            return self.revoke_one(request, session)
        events = []
        if session is not None and self.has_view_permission(request, session):
            events = session_service.history(session_id=session.pk, max_rows=HISTORY)
        context = {
            "events": [replace(event, at=local_time(event.at)) for event in events],
            "may_revoke": session is not None
            and session.is_live
            and self.has_revoke_permission(request),
            **(extra_context or {}),
        }
        return super().change_view(request, object_id, form_url, context)

    def revoke_one(self, request: HttpRequest, session: UserSession) -> HttpResponse:
        if not (self.has_view_permission(request, session) and self.has_revoke_permission(request)):
            raise PermissionDenied
        chosen = UserSession.objects.filter(pk=session.pk)
        if "_revoke_all" in request.POST:
            self.revoke_all(request, chosen)
        else:
            self.revoke(request, chosen)
        return HttpResponseRedirect(request.path)

    class Media:
        css = {"all": ("session_manager/admin.css",)}


class _EventList(_List):
    """Links that say when the event was, by which an index finds it, and in which database."""

    def url_for_result(self, result: Any) -> str:
        query = {"at": result.at.isoformat()}
        if settings.is_sharded:
            query[DATABASE] = self.queryset.db
        return f"{super().url_for_result(result)}?{urlencode(query)}"


@admin.register(SessionEvent)
class SessionEventAdmin(_ReadOnlyAdmin):
    list_display = ("at", "event", "user_id", "tenant_id", "ip", "session_link", "detail")
    list_filter = (ShardFilter, EventFilter, "at")
    list_per_page = 100
    ordering = ("-at", "-event_id")
    show_full_result_count = False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _EventList

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> SessionEvent | None:
        alias = request.GET.get(DATABASE)
        if settings.is_sharded:
            # Its number alone says nothing: each database counts its own.
            if alias not in all_aliases():
                return None
            with using(alias):
                return self.find_event(request, object_id)
        return self.find_event(request, object_id)

    def find_event(self, request: HttpRequest, object_id: str) -> SessionEvent | None:
        event = None
        with suppress(ValueError, ValidationError):
            if at := parse_datetime(request.GET.get("at", "")):
                event = self.get_queryset(request).filter(at=at, pk=object_id).first()
        return event or super().get_object(request, object_id)

    @admin.display(description=_("session"))
    def session_link(self, event: SessionEvent) -> str:
        if event.session_id is None:
            return "-"
        return format_html(
            '<a href="{}">{}</a>',
            reverse("admin:session_manager_usersession_change", args=[event.session_id]),
            str(event.session_id)[:13],
        )


@admin.register(SessionOverview)
class SessionOverviewAdmin(_ReadOnlyAdmin):
    """One page, of all tenants unless one is asked for; the permission is to see all of it."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="session_manager_sessionoverview_changelist")]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        database, query = None, {}
        if settings.is_sharded:
            known = all_aliases()
            chosen = request.GET.get(DATABASE)
            database = chosen if chosen in known else known[0]
            query = {DATABASE: database}
        tenant_id = request.GET.get("tenant") or None
        of_tenant = {} if tenant_id is None else {"tenant": tenant_id}
        databases = [
            (alias, urlencode({DATABASE: alias, **of_tenant}))
            for alias in (all_aliases() if settings.is_sharded else [])
        ]
        try:
            with using(database):
                page = overview(tenant_id)
        except InvalidArgument as error:
            return HttpResponseBadRequest(str(error), content_type="text/plain; charset=utf-8")
        context = {
            **self.admin_site.each_context(request),
            "title": capfirst(str(self.opts.verbose_name)),
            "opts": self.opts,
            "media": self.media,
            "page": page,
            "days": DAYS,
            "events": [replace(event, at=local_time(event.at)) for event in page.events],
            "database": database,
            "databases": databases,
            "database_parameter": DATABASE,
            "all_tenants": urlencode(query),
            "role": connections[database or settings.DATABASE].settings_dict["USER"],
            "may_view_sessions": request.user.has_perm("session_manager.view_usersession"),
            **(extra_context or {}),
        }
        template = "admin/session_manager/sessionoverview/change_list.html"
        return TemplateResponse(request, template, context)

    class Media:
        css = {"all": ("session_manager/admin.css",)}
