"""Room for a token in the column where django-allauth keeps the keys of sessions."""

from django.db import migrations


class Migration(migrations.Migration):
    initial = True
    dependencies = [("usersessions", "0001_initial")]
    operations = [
        migrations.RunSQL(
            "ALTER TABLE usersessions_usersession ALTER COLUMN session_key TYPE varchar(80)",
            migrations.RunSQL.noop,
        )
    ]
