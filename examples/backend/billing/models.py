"""Tenants, who may act for them, and their invoices.

Invoices are under row-level security: a query sees those of the tenant that the session is bound
to, whatever it asks for, and without a bound session none.
"""

from __future__ import annotations

import uuid

from django.db import models


class Tenant(models.Model):
    id = models.SlugField(primary_key=True)
    name = models.CharField(max_length=100)
    plan = models.CharField(max_length=20, default="free")
    status = models.CharField(max_length=20, default="active")

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE)
    #: The session's user id, which is the subject of the access token.
    user_id = models.CharField(max_length=512)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user_id", "tenant"], name="one_membership")]

    def __str__(self) -> str:
        return f"{self.user_id} of {self.tenant_id}"


class Invoice(models.Model):
    number = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # The policy checks it: an invoice cannot be written for another tenant.
    tenant = models.ForeignKey(Tenant, models.CASCADE)
    customer = models.CharField(max_length=100)
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    currency = models.CharField(max_length=3, default="EUR")
    issued_on = models.DateField(auto_now_add=True)
    created_by = models.CharField(max_length=512)

    class Meta:
        ordering = ("-issued_on", "number")

    def __str__(self) -> str:
        return f"{self.customer}: {self.amount} {self.currency}"
