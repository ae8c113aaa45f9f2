"""The session endpoints: ``path("api/sessions/", include("session_manager.urls"))``."""

from django.urls import path

from .api import device_views, views

app_name = "session_manager"

urlpatterns = [
    path("", views.SessionListView.as_view(), name="list"),
    path("create/", views.CreateSessionView.as_view(), name="create"),
    path("current/", views.CurrentSessionView.as_view(), name="current"),
    path("refresh/", views.RefreshSessionView.as_view(), name="refresh"),
    path("tenant/", views.SwitchTenantView.as_view(), name="tenant"),
    path("impersonation/", views.ImpersonationView.as_view(), name="impersonation"),
    path("invalidate-all/", views.InvalidateAllView.as_view(), name="invalidate-all"),
    path("device/register/", device_views.RegisterDeviceView.as_view(), name="device-register"),
    path("device/refresh/", device_views.RefreshDeviceView.as_view(), name="device-refresh"),
    # Not uuid: what is no id gets the endpoint's 404, and not an HTML page.
    path("<str:session_id>/", views.SessionDetailView.as_view(), name="detail"),
]
