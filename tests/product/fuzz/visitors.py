"""Who sends the requests, and what is theirs: with ids that nobody has, fuzzing would see little but 404."""

import io
import re
import secrets
from collections.abc import Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from typing import Any, Literal

import requests
from schemathesis import APIOperation, Case, Response
from schemathesis.core.parameters import ParameterLocation
from urllib3 import HTTPResponse

from commands.users import create_admin
from config import Settings
from tests.product.people import account
from tests.samples import SAMPLES, about, with_ids

Role = Literal["nobody", "learner", "admin"]
Whose = Literal["own", "foreign", "generated"]
SIGN_IN, CONFIRM = "/auth/token", "/auth/confirm-password"
PARTS = (ParameterLocation.PATH, ParameterLocation.QUERY, ParameterLocation.HEADER, ParameterLocation.BODY)
NO_TOKENS: tuple[dict[str, str], ...] = ({}, {"Authorization": f"Bearer {'-' * 43}"}, {"Authorization": "Basic YTpi"})
LOST: dict[Role, set[int]] = {"nobody": set(), "learner": {401, 404, 409}, "admin": {401, 403, 404, 409}}
"""What a role is answered when an earlier case took its session or its role, or took or changed the object that is
named."""
OF_OBJECTS = {404, 409}


@dataclass
class Account:
    username: str
    password: str
    token: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    """What is the account's, by the names that parameters and fields have in the API."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def values(self, path: str) -> Mapping[str, str]:
        """What to send under these names."""
        values = {
            **self.ids,
            "cursor": max(self.ids.values()),  # the newest: nothing of the account is beyond it
            "current_password": self.password,
            # begin part live
            "Last-Event-ID": "0",  # before the first message
            # end part live
            "Idempotency-Key": secrets.token_hex(8),  # one that was used for another request is refused
            "If-Match": "*",  # no generated tag is the present one
        }
        if path == SIGN_IN:
            return values | {"username": self.username, "password": self.password}
        if path == CONFIRM:
            return values | {"password": self.password}
        return values | {"password": secrets.token_hex(8)}  # what is generated is often too easy to guess


class Site:
    """A running app and how to get an account there."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.hooks["response"].append(hang_up_on_events)
        self._settings = settings

    def new_account(self, role: Role) -> Account:
        """An account that is signed in, and has one of everything."""
        new = self._register(role)
        new.ids["user_id"] = self._ask("GET", "/users/me", headers=new.headers)["id"]
        new.ids["session_id"] = self._ask("GET", "/auth/sessions", headers=new.headers)["items"][0]["id"]
        for sample in SAMPLES:
            maker = self._keeper if sample.owner == "admin" else new
            path, body = with_ids(sample.path, new.ids), about(new.ids, sample.body)
            new.ids[sample.parameter] = self._ask("POST", path, headers=maker.headers, json=body)["id"]
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
    """Take what comes of a stream of events until an event is whole, or nothing comes but a sign of life: it has no
    end."""
    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
        first = b""
        while not re.search(rb"^data: .*\n\n|^: ", first, re.DOTALL | re.MULTILINE) and (more := response.raw.read1()):
            first += more
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
