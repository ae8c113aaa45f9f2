"""The permission to see the admin's page Overview; no table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("session_manager", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="SessionOverview",
            fields=[("id", models.AutoField(primary_key=True, serialize=False))],
            options={
                "verbose_name": "overview",
                "verbose_name_plural": "overview",
                "managed": False,
                "default_permissions": ("view",),
            },
        ),
    ]
