from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from billing import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/sessions/", include("session_manager.urls")),
    path("api/invoices/", views.InvoiceList.as_view()),
    path("api/invoices/<uuid:number>/", views.InvoiceDetail.as_view()),
    path("api/history/", views.History.as_view()),
    path("api/subscription/", views.Subscription.as_view()),
    path("api/schema/", SpectacularAPIView.as_view()),
]
