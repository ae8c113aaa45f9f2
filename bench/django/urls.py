"""The view that every side serves: who is signed in, and one value of the session."""

from __future__ import annotations

from django.conf import settings
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


def _ours(request: Request) -> str:
    return request.session_info.data["plan"]


def _django(request: Request) -> str:
    return request.session["plan"]


def _knox(request: Request) -> str:
    # A token of knox has no data.
    return request.auth.token_key


if settings.SIDE.engine:
    _value = _django
elif settings.SIDE.middleware:
    _value = _ours
else:
    _value = _knox


class Page(APIView):
    def get(self, request: Request) -> Response:
        return Response({"user": request.user.pk, "value": _value(request)})


urlpatterns = [path("page/", Page.as_view())]
