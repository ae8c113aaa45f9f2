from django.contrib import admin
from django.urls import include, path

from session_manager import urls as session_urls

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/sessions/", include(session_urls)),
    path("api/me/", views.me),
    path("dashboard/", views.dashboard),
    path("sign-in/", views.sign_in),
    path("sign-out/", views.sign_out),
]
