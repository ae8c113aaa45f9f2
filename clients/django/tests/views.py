"""Views of an application that uses the package."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from session_manager.login import log_in, log_out


class WhoAmI(APIView):
    """Open to everybody."""

    permission_classes: list[Any] = []

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user) if request.user.is_authenticated else None})

    post = get


class Protected(WhoAmI):
    permission_classes = [IsAuthenticated]


def info(request: HttpRequest) -> HttpResponse:
    session = request.session_info
    return JsonResponse({"exists": bool(session), "user": session.user_id, "data": session.data})


async def ainfo(request: HttpRequest) -> HttpResponse:
    session = await request.asession_info()
    return JsonResponse({"exists": bool(session), "user": session.user_id, "data": session.data})


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing of sessions\n")


def broken(request: HttpRequest) -> HttpResponse:
    token = next(iter(request.COOKIES.values()))
    raise ZeroDivisionError(len(token))


def login(request: HttpRequest) -> HttpResponse:
    log_in(request, request.GET["user"], {"via": "form"}, auth={"amr": ["pwd"]})
    return HttpResponse(status=204)


def logout(request: HttpRequest) -> HttpResponse:
    log_out(request)
    return HttpResponse(status=204)
