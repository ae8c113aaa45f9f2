"""Views of an application that uses the package."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.views import View
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from session_manager import exceptions
from session_manager.identity import bound_user_id, session_identity
from session_manager.login import log_in, log_out, step_up, stop_impersonation, token_from
from session_manager.services import session_service


class WhoAmI(APIView):
    """Open to everybody."""

    permission_classes: list[Any] = []

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user) if request.user.is_authenticated else None})

    post = get


class Protected(WhoAmI):
    permission_classes = [IsAuthenticated]


class Bound(WhoAmI):
    """What row-level security sees."""

    authentication_classes: list[Any] = []

    def get(self, request: Request) -> Response:
        with session_identity(request):
            return Response({"user": bound_user_id()})

    # Without a challenge DRF would answer 403.
    def get_authenticate_header(self, request: Request) -> str:
        return "Session"


def bound_plainly(request: HttpRequest) -> HttpResponse:
    """The same without DRF."""
    with session_identity(request):
        return JsonResponse({"user": bound_user_id()})


def prove_more(request: HttpRequest) -> HttpResponse:
    elevated = step_up(request, {"amr": ["pwd", "otp"]})
    return JsonResponse({"status": elevated.status})


@login_required
def members(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.user))


class Members(LoginRequiredMixin, View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return members(request)


def greeting(request: HttpRequest) -> HttpResponse:
    text = "{% if user.is_authenticated %}{{ user }}{% else %}nobody{% endif %}"
    return HttpResponse(engines["django"].from_string(text).render({}, request))


async def amember(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    return HttpResponse(str(user) if user.is_authenticated else "nobody")


def login_and_tell(request: HttpRequest) -> HttpResponse:
    before = str(request.user)
    log_in(request, request.GET["user"])
    during = str(request.user)
    log_out(request)
    return JsonResponse({"users": [before, during, str(request.user)]})


def info(request: HttpRequest) -> HttpResponse:
    session = request.session_info
    return JsonResponse({"exists": bool(session), "user": session.user_id, "data": session.data})


async def ainfo(request: HttpRequest) -> HttpResponse:
    session = await request.asession_info()
    return JsonResponse({"exists": bool(session), "user": session.user_id, "data": session.data})


async def avisit(request: HttpRequest) -> HttpResponse:
    """Counts visits in the session by the service alone."""
    token = token_from(request)
    session = await session_service.aget(token)
    if session is None:
        return JsonResponse({"exists": False}, status=401)
    updated = await session_service.aupdate(token, {"visits": session.data.get("visits", 0) + 1})
    listed = await session_service.alist(session.user_id, current_token=token)
    return JsonResponse(
        {
            "exists": True,
            "user": session.user_id,
            "data": updated.data if updated else None,
            "sessions": [str(entry.id) for entry in listed],
        }
    )


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing of sessions\n")


def raise_it(request: HttpRequest) -> HttpResponse:
    raise getattr(exceptions, request.GET["name"])("of the view")


async def araise_it(request: HttpRequest) -> HttpResponse:
    return raise_it(request)


class RaiseIt(WhoAmI):
    def get(self, request: Request) -> Response:
        raise getattr(exceptions, request.GET["name"])("of the view")


def broken(request: HttpRequest) -> HttpResponse:
    token = next(iter(request.COOKIES.values()))
    raise ZeroDivisionError(len(token))


def login(request: HttpRequest) -> HttpResponse:
    remember = {"yes": True, "no": False}.get(request.GET.get("remember", ""))
    log_in(request, request.GET["user"], {"via": "form"}, auth={"amr": ["pwd"]}, remember=remember)
    return HttpResponse(status=204)


def impersonate(request: HttpRequest) -> HttpResponse:
    user = get_user_model().objects.get(username=request.GET["user"])
    log_in(request, user, actor=request.user, auth={"method": "impersonation"})
    return JsonResponse({"user": str(request.user), "actor": request.session_info.actor})


def stop(request: HttpRequest) -> HttpResponse:
    session = stop_impersonation(request)
    return JsonResponse({"user": session and session.user_id})


def logout(request: HttpRequest) -> HttpResponse:
    log_out(request)
    return HttpResponse(status=204)


def refresh_and_fail(request: HttpRequest) -> HttpResponse:
    refreshed = session_service.refresh(token_from(request), rotate=True)
    raise ZeroDivisionError(refreshed.status)


def session(request: HttpRequest) -> HttpResponse:
    """Writes the parameters into request.session, and tells what is there."""
    for name, value in request.GET.items():
        request.session[name] = value
    return JsonResponse({k: v for k, v in request.session.items() if not k.startswith("_")})
