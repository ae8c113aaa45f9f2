from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.views.decorators.http import require_POST
from rest_framework.decorators import api_view
from rest_framework.response import Response

from session_manager.login import log_out as logout


def sign_in(request):
    """Where a front end would be; it hands out the CSRF token."""
    return HttpResponse(get_token(request))


@login_required
def dashboard(request):
    return HttpResponse(f"Hello, {request.user.username}.")


@api_view(["GET", "POST"])
def me(request):
    if request.method == "POST":
        request.user.first_name = request.data["first_name"]
        request.user.save()
    return Response({"id": request.user.auth0_id, "first_name": request.user.first_name})


@require_POST
def sign_out(request):
    logout(request)
    return redirect("/sign-in/")
