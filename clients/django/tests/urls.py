from django.contrib import admin
from django.urls import include, path

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/sessions/", include("session_manager.urls")),
    path("whoami/", views.WhoAmI.as_view()),
    path("protected/", views.Protected.as_view()),
    path("info/", views.info),
    path("ainfo/", views.ainfo),
    path("plain/", views.plain),
    path("broken/", views.broken),
    path("login/", views.login),
    path("logout/", views.logout),
]
