import jwt
from django.conf import settings
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed

from .models import User

keys = jwt.PyJWKClient(settings.AUTH0_JWKS_URL)


class Auth0JWTAuthentication(BaseAuthentication):
    """The user of an access token of Auth0; one who comes for the first time is made."""

    def authenticate(self, request):
        kind, _, token = get_authorization_header(request).decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            return None
        try:
            claims = jwt.decode(
                token,
                keys.get_signing_key_from_jwt(token).key,
                algorithms=["RS256"],
                audience=settings.AUTH0_API_AUDIENCE,
                issuer=settings.AUTH0_ISSUER,
            )
        except jwt.PyJWTError as error:
            raise AuthenticationFailed(str(error)) from error
        subject = claims["sub"]
        user, _ = User.objects.get_or_create(auth0_id=subject, defaults={"username": subject})
        return user, claims

    def authenticate_header(self, request):
        return "Bearer"
