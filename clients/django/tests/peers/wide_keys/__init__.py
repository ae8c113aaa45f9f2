"""What a project does that has django-allauth's list of sessions: a session key is a token."""
