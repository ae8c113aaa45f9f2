"""Tables, row-level security for invoices, and something to look at."""

import uuid
from typing import Any

import django.db.models.deletion
from django.db import migrations, models

# FORCE: the application's role owns the table and must be subject to the policy all the same.
POLICY = """
ALTER TABLE billing_invoice ENABLE ROW LEVEL SECURITY;
ALTER TABLE billing_invoice FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON billing_invoice
    USING (tenant_id = session_tenant_id())
    WITH CHECK (tenant_id = session_tenant_id());
"""

TENANTS = (("acme", "Acme", "team"), ("globex", "Globex", "free"))
MEMBERS = {
    "auth0|ada": ("acme", "globex"),
    "auth0|grace": ("globex",),
    "auth0|linus": ("acme",),
}


def fill(apps: Any, schema_editor: Any) -> None:
    tenant_model = apps.get_model("billing", "Tenant")
    for tenant_id, name, plan in TENANTS:
        tenant_model.objects.create(id=tenant_id, name=name, plan=plan)
    for user_id, tenants in MEMBERS.items():
        for tenant_id in tenants:
            apps.get_model("billing", "Membership").objects.create(
                user_id=user_id, tenant_id=tenant_id
            )
    # Before the policy is there: afterwards nothing can be written without a session.
    invoices = apps.get_model("billing", "Invoice").objects
    for tenant_id, customer, amount in (
        ("acme", "Initech", "1250.00"),
        ("acme", "Umbrella", "89.90"),
        ("acme", "Hooli", "430.50"),
        ("globex", "Wayne Enterprises", "99.00"),
        ("globex", "Stark Industries", "7300.00"),
    ):
        invoices.create(
            tenant_id=tenant_id, customer=customer, amount=amount, created_by="auth0|ada"
        )


class Migration(migrations.Migration):
    initial = True

    # The policy calls functions of the extension.
    dependencies = [("session_manager", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Tenant",
            fields=[
                ("id", models.SlugField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
                ("plan", models.CharField(default="free", max_length=20)),
                ("status", models.CharField(default="active", max_length=20)),
            ],
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("user_id", models.CharField(max_length=512)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="billing.tenant"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["user_id", "tenant"], name="one_membership")
                ]
            },
        ),
        migrations.CreateModel(
            name="Invoice",
            fields=[
                (
                    "number",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("customer", models.CharField(max_length=100)),
                ("amount", models.DecimalField(decimal_places=2, max_digits=12)),
                ("currency", models.CharField(default="EUR", max_length=3)),
                ("issued_on", models.DateField(auto_now_add=True)),
                ("created_by", models.CharField(max_length=512)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="billing.tenant"
                    ),
                ),
            ],
            options={"ordering": ("-issued_on", "number")},
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
        # The rows that have just been written have checks pending, which ALTER TABLE waits for.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.RunSQL(POLICY, migrations.RunSQL.noop),
    ]
