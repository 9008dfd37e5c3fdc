"""Who sends the requests, and what is theirs: with ids that nobody has, fuzzing would see little but 404."""

import io
import secrets
from collections.abc import Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any, Literal

import requests
from schemathesis import APIOperation, Case, Response
from schemathesis.core.parameters import ParameterLocation
from urllib3 import HTTPResponse

from commands.users import create_admin
from config import Settings
from models.course import EXAMPLE, MAX_CAPACITY
from tests.product.people import account

Role = Literal["nobody", "learner", "admin"]
Whose = Literal["own", "foreign", "generated"]
SIGN_IN = "/auth/token"
PARTS = (ParameterLocation.PATH, ParameterLocation.QUERY, ParameterLocation.HEADER, ParameterLocation.BODY)
NO_TOKENS: tuple[dict[str, str], ...] = ({}, {"Authorization": f"Bearer {'-' * 43}"}, {"Authorization": "Basic YTpi"})
LOST: dict[Role, set[int]] = {"nobody": set(), "learner": {401, 404, 409}, "admin": {401, 403, 404, 409}}
"""What a role is answered when an earlier case took its session, its role, or the object that is named, cancelled the
order, or changed the course so that no seat is left."""
OF_OBJECTS = {404, 409}


@dataclass
class Account:
    username: str
    password: str
    token: str = ""
    user_id: str = ""
    conversation_id: str = ""
    course_id: str = ""
    order_id: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def values(self, path: str) -> Mapping[str, str]:
        """What is the account's, by the names that parameters and fields have in the API."""
        values = {
            "user_id": self.user_id,
            "conversation_id": self.conversation_id,
            "course_id": self.course_id,
            "order_id": self.order_id,
            "cursor": self.order_id,  # the newest
            "current_password": self.password,
            # begin part live
            "Last-Event-ID": "0",  # before the first message
            # end part live
            "Idempotency-Key": secrets.token_hex(8),  # one that was used for another request is refused
        }
        if path == SIGN_IN:
            return values | {"username": self.username, "password": self.password}
        return values | {"password": secrets.token_hex(8)}  # what is generated is often too common


class Site:
    """A running app and how to get an account there."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.hooks["response"].append(hang_up_on_events)
        self._settings = settings

    def new_account(self, role: Role) -> Account:
        """An account that is signed in, with a conversation of two messages, and a course that it has ordered."""
        new = self._register(role)
        new.user_id = self._ask("GET", "/users/me", headers=new.headers)["id"]
        new.conversation_id = self._ask("POST", "/conversations", headers=new.headers, json={"title": "t"})["id"]
        for content in ("one", "two"):
            path = f"/conversations/{new.conversation_id}/messages"
            self._ask("POST", path, headers=new.headers, json={"content": content})
        course = EXAMPLE | {"capacity": MAX_CAPACITY}
        new.course_id = self._ask("POST", "/courses", headers=self._keeper.headers, json=course)["id"]
        new.order_id = self._ask("POST", "/orders", headers=new.headers, json={"course_id": new.course_id})["id"]
        return new

    @cached_property
    def _keeper(self) -> Account:
        """An admin that no case acts as."""
        return self._register("admin")

    def _register(self, role: Role) -> Account:
        body = account()
        if role == "admin":
            with ThreadPoolExecutor(1) as thread:  # it runs an event loop of its own
                thread.submit(create_admin, self._settings, **body).result()
        else:
            self._ask("POST", "/users/register", json=body)
        new = Account(body["username"], body["password"])
        assert self.sign_in(new)
        return new

    def sign_in(self, account: Account) -> bool:
        """Give the account a new session, if its password is still the one it knows."""
        form = {"username": account.username, "password": account.password}
        answer = self.session.post(f"{self.url}{SIGN_IN}", data=form, timeout=60)
        if answer.ok:
            account.token = answer.json()["access_token"]
        return answer.ok

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        answer = self.session.request(method, f"{self.url}{path}", timeout=60, **request)
        assert answer.ok, answer.text
        return answer.json()


class Visitor:
    """Sends cases in one role. What a case has taken from it, such as its session, it gets anew for the next."""

    def __init__(self, site: Site, role: Role, stranger: Account) -> None:
        self._site = site
        self._role: Role = role
        self._account = site.new_account(role)
        self._stranger = stranger
        self._no_tokens = cycle(NO_TOKENS)

    def send(self, case: Case[Any], whose: Whose) -> Response:
        """Send a case with the names and ids of the visitor, of a stranger, or those that were generated."""
        response = self._send(case, whose)
        if self._has_lost_something(case, whose, response.status_code):
            if response.status_code != 401 or not self._site.sign_in(self._account):
                self._account = self._site.new_account(self._role)
            response = self._send(case, whose)
        if response.status_code < 300 and is_protected(case.operation) and isinstance(case.body, dict):
            self._account.username = str(case.body.get("username", self._account.username))
            self._account.password = str(case.body.get("new_password", self._account.password))
        return response

    def _send(self, case: Case[Any], whose: Whose) -> Response:
        if whose != "generated":
            fill_in(case, (self._account if whose == "own" else self._stranger).values(case.path))
        headers = next(self._no_tokens) if self._role == "nobody" else self._account.headers
        return case.call(self._site.url, session=self._site.session, headers=headers, timeout=60)

    def _has_lost_something(self, case: Case[Any], whose: Whose, status: int) -> bool:
        is_mine = status not in OF_OBJECTS or whose == "own"
        return is_protected(case.operation) and status in LOST[self._role] and is_mine


def hang_up_on_events(response: requests.Response, **_: Any) -> None:
    """Take the first that comes of a stream of events, which has no end."""
    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
        first = response.raw.read1(65_536)
        response.close()
        response.raw = HTTPResponse(io.BytesIO(first), response.headers, preload_content=False)


def fill_in(case: Case[Any], values: Mapping[str, str]) -> None:
    """Replace what the case sends under these names, except in a part that was made wrong on purpose."""
    assert case.meta
    for location in PARTS:
        sent = case.get_container(location)
        if isinstance(sent, MutableMapping) and not case.meta.is_negative_at(location):
            sent.update({name: values[name] for name in sent.keys() & values.keys()})


def is_protected(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    return bool(operation.definition.raw.get("security"))
