"""A client that is generated from the API's document does what a user does, through its own functions and types."""

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.product.clients.generated import PACKAGE, generate
from tests.product.people import account
from tristore.testing.lab import App


@dataclass(frozen=True)
class Generated:
    """The generated package, and the address to use it with."""

    base_url: str
    models: Any

    async def call(self, operation: str, token: str = "", **arguments: Any) -> tuple[int, Any]:
        """Call an operation by its name (tag.operationId). Returns the status and the parsed answer."""
        package: Any = import_module(PACKAGE)
        options = {"base_url": self.base_url, "raise_on_unexpected_status": True}
        client = package.AuthenticatedClient(token=token, **options) if token else package.Client(**options)
        function: Any = import_module(f"{PACKAGE}.api.{operation}").asyncio_detailed
        async with client:
            answer = await function(client=client, **arguments)
        return answer.status_code, answer.parsed

    async def new_user(self) -> tuple[UUID, str]:
        """Register and sign in. Returns the id and the token."""
        body = account(cefr_level="B1")
        new = self.models.Registration.from_dict(body)
        status, registered = await self.call("users.register", body=new, idempotency_key=body["username"])
        assert (status, type(registered)) == (201, self.models.Registered)
        form = self.models.SignIn(username=body["username"], password=body["password"])
        status, token = await self.call("auth.sign_in", body=form)
        assert (status, type(token)) == (200, self.models.Token)
        return registered.user_id, token.access_token


@pytest.fixture(scope="module")
async def generated(app: App, tmp_path_factory: pytest.TempPathFactory) -> Generated:
    folder = tmp_path_factory.mktemp("generated")
    generate((await app.client.get("/openapi.json")).text, folder)
    sys.path.insert(0, str(folder))
    return Generated(str(app.client.base_url), import_module(f"{PACKAGE}.models"))


async def test_registers_signs_in_and_chats(generated: Generated) -> None:
    user_id, token = await generated.new_user()
    models, call = generated.models, generated.call

    _, me = await call("users.read_me", token)
    assert (type(me), me.id, me.level) == (models.FullProfile, user_id, "B1")

    new = models.NewConversation(title="A weekend in Lisbon")
    status, conversation = await call("conversations.create_conversation", token, body=new)
    assert (status, conversation.title, conversation.user_id) == (201, new.title, user_id)

    for number, status in ((1, 201), (2, 201), (2, 200)):
        body = models.NewMessage(id=f"m-{number}", content=f"Olá {number}")
        answered, message = await call(
            "conversations.append_message", token, conversation_id=conversation.id, body=body
        )
        assert (answered, type(message), message.seq) == (status, models.Message, number)

    _, page = await call("conversations.list_messages", token, conversation_id=conversation.id, after_seq=0)
    assert ([message.content for message in page.items], page.next_) == (["Olá 1", "Olá 2"], None)

    _, courses = await call("courses.list_courses")
    assert (type(courses), courses.items, courses.total) == (models.CoursePage, [], 0)

    assert await call("auth.sign_out", token) == (204, None)
    assert (await call("users.read_me", token))[0] == 401


async def test_reads_errors_as_problems(generated: Generated) -> None:
    _, token = await generated.new_user()
    models, call = generated.models, generated.call
    taken = models.Registration.from_dict(account())
    await call("users.register", body=taken)
    calls = [
        (401, call("users.read_me")),
        (404, call("conversations.read_conversation", token, conversation_id=uuid4())),
        (409, call("users.register", body=taken)),
        (422, call("conversations.create_conversation", token, body=models.NewConversation(title=""))),
    ]
    problems = {}
    for expected, answer in calls:
        status, problems[expected] = await answer
        assert (status, type(problems[expected]), problems[expected].status) == (expected, models.Problem, expected)
    assert problems[409].field == "username"
    assert [error.field for error in problems[422].errors] == ["title"]
