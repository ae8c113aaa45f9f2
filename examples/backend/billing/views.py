"""The example's endpoints.  Each query of invoices runs inside session_identity."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import transaction
from django.http import Http404
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from session_manager.identity import session_identity
from session_manager.services import session_service
from session_manager.types import Session

from .models import Invoice, Tenant
from .serializers import InvoiceSerializer, PlanSerializer
from .tenants import change_plan

FREE_INVOICES = 20


def session_of(request: Request) -> Session:
    """The session of a request; an access token alone acts for no tenant."""
    if not isinstance(request.auth, Session) or request.auth.tenant_id is None:
        raise NotAuthenticated
    return request.auth


class InvoiceList(APIView):
    def get(self, request: Request) -> Response:
        session_of(request)
        with session_identity(request):
            invoices = InvoiceSerializer(Invoice.objects.all()[:100], many=True).data
        return Response({"results": invoices})

    def post(self, request: Request) -> Response:
        session = session_of(request)
        serializer = InvoiceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        with session_identity(request):
            if session.data.get("plan") == "free" and Invoice.objects.count() >= FREE_INVOICES:
                raise PermissionDenied("The free plan ends at 20 invoices.", "plan_limit")
            serializer.save(tenant_id=session.tenant_id, created_by=session.user_id)
        return Response(serializer.data, 201)


class InvoiceDetail(APIView):
    def get(self, request: Request, number: uuid.UUID) -> Response:
        session_of(request)
        with session_identity(request):
            invoice = Invoice.objects.filter(number=number).first()
        if invoice is None:
            raise Http404
        return Response(InvoiceSerializer(invoice).data)


class Subscription(APIView):
    """POST: change the plan of the tenant, for everybody who acts for it, at once."""

    def post(self, request: Request) -> Response:
        session = session_of(request)
        serializer = PlanSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        plan: Any = serializer.validated_data
        with transaction.atomic():
            tenant = Tenant.objects.select_for_update().get(pk=session.tenant_id)
            changed = change_plan(tenant, plan["plan"])
        return Response({"plan": plan["plan"], "sessions": changed})


class History(APIView):
    """GET: what happened to the user's sessions, newest first."""

    def get(self, request: Request) -> Response:
        events = session_service.history(user_id=session_of(request).user_id, max_rows=50)
        return Response(
            {
                "results": [
                    {
                        "id": event.id,
                        "at": event.at,
                        "session_id": event.session_id,
                        "event": event.event,
                        "severity": event.severity,
                        "ip": event.ip,
                        "user_agent": event.user_agent,
                        "detail": event.detail,
                    }
                    for event in events
                ]
            }
        )
