from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/sessions/", include("session_manager.urls")),
    path("sessions/", include("session_manager.links")),
    path("api/schema/", SpectacularAPIView.as_view()),
    path("whoami/", views.WhoAmI.as_view()),
    path("protected/", views.Protected.as_view()),
    path("info/", views.info),
    path("ainfo/", views.ainfo),
    path("avisit/", views.avisit),
    path("plain/", views.plain),
    path("members/", views.members),
    path("members-too/", views.Members.as_view()),
    path("greeting/", views.greeting),
    path("amember/", views.amember),
    path("login-and-tell/", views.login_and_tell),
    path("bound/", views.Bound.as_view()),
    path("bound-plainly/", views.bound_plainly),
    path("step-up/", views.prove_more),
    path("raise/", views.raise_it),
    path("araise/", views.araise_it),
    path("api-raise/", views.RaiseIt.as_view()),
    path("broken/", views.broken),
    path("login/", views.login),
    path("impersonate/", views.impersonate),
    path("stop/", views.stop),
    path("logout/", views.logout),
    path("session/", views.session),
    path("accounts/login/", LoginView.as_view(template_name="admin/login.html")),
    path("accounts/logout/", LogoutView.as_view(next_page="/plain/")),
    path("accounts/password/", PasswordChangeView.as_view(success_url="/plain/")),
    path("refresh-and-fail/", views.refresh_and_fail),
]
