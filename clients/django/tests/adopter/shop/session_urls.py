"""Sessions by Django's own: what session_manager.urls takes the place of."""

from django.contrib.auth import login, logout
from django.urls import path
from rest_framework.response import Response
from rest_framework.views import APIView


class Create(APIView):
    """An access token for a session."""

    def post(self, request):
        login(request._request, request.user)
        return Response({"user": {"id": request.user.auth0_id}}, 201)


class Current(APIView):
    def get(self, request):
        return Response({"user": {"id": request.user.auth0_id}})

    def delete(self, request):
        logout(request._request)
        return Response(status=204)


urlpatterns = [path("create/", Create.as_view()), path("current/", Current.as_view())]
