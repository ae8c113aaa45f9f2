"""An application as its owners have it, with django.contrib.sessions: what test_adopter.py moves.

Django and DRF, an authentication class of its own for access tokens, pages and endpoints that use
request.user, Django's admin.  ``../after`` has the files that differ once it has moved.
"""
