"""What clients send to sign in and to keep their account, and the token that they get. It is shown once and never
stored."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from tristore.fields import AccountName, Email, NewPassword, Password
from tristore.identity import shown
from tristore.models import Model, at_most, example, storable
from tristore.tokens import SentToken

DeviceName = Annotated[
    str,
    StringConstraints(max_length=80, strip_whitespace=True),
    at_most(80),
    AfterValidator(lambda name: name and shown(storable(name))),
]


class SignIn(BaseModel):
    """The OAuth2 password form; its other fields are ignored."""

    model_config = ConfigDict(extra="ignore") | example({"username": "ana", "password": "correct horse 9"})

    username: AccountName = Field(description="username or email")
    password: Password
    grant_type: Literal["password"] = "password"
    device: DeviceName = Field("", description="what the user calls it, to know the session by")


class PasswordConfirmation(Model):
    """Body of POST /auth/confirm-password."""

    model_config = example({"password": "correct horse 9"})

    password: Password


class PasswordChange(Model):
    """Body of POST /users/me/password."""

    model_config = example({"current_password": "correct horse 9", "new_password": "battery staple 7"})

    current_password: Password
    new_password: NewPassword


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - not a password
    expires_in: int = Field(description="seconds until it ends at the latest")


class ResetRequest(Model):
    model_config = example({"email": "ana@example.com"})

    email: Email


class PasswordReset(Model):
    model_config = example({"token": "as the link has it", "new_password": "battery staple 7"})

    token: SentToken
    new_password: NewPassword


class Verification(Model):
    model_config = example({"token": "as the link has it"})

    token: SentToken
