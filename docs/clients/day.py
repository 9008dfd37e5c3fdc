"""A day in a client's life, on a connection that may break at any time: `python day.py http://localhost:8000`.

`chatlingo_client` is what openapi-python-client has made of the API's document."""

import asyncio
import json
import sys
import uuid
from typing import Any

import httpx
from chatlingo_client import AuthenticatedClient, Client
from chatlingo_client import models as m
from chatlingo_client.api.auth import sign_in
from chatlingo_client.api.conversations import append_message, create_conversation
from chatlingo_client.api.users import erase_me, export_me, register
from follow import follow
from retries import Retry

PASSWORD = "correct horse 9"  # noqa: S105 - an example


async def main(api: str) -> dict[str, Any]:
    name = f"ana-{uuid.uuid4().hex[:8]}"
    account = m.Registration(name, f"{name}@example.com", PASSWORD)
    connection = {"base_url": api, "httpx_args": {"transport": Retry()}}
    client = Client(**connection)
    good(await register.asyncio(client=client, body=account))
    token = good(await sign_in.asyncio(client=client, body=m.SignIn(name, PASSWORD))).access_token
    client = AuthenticatedClient(token=token, **connection)

    conversation = good(await create_conversation.asyncio(client=client, body=m.NewConversation(title="Au marché")))
    seen: list[str] = []
    following = asyncio.create_task(listen(api, token, str(conversation.id), seen))
    for number, content in enumerate(("Bonjour !", "Une baguette, s'il vous plaît.", "Merci, au revoir."), 1):
        message = m.NewMessage(id=f"m-{number}", content=content)  # its own id: sent again it is the same message
        good(await append_message.asyncio(client=client, conversation_id=conversation.id, body=message))
        while len(seen) < number:
            await asyncio.sleep(0.02)

    told: dict[str, Any] = {"seen": seen}
    export = good(await export_me.asyncio(client=client))
    told["exported"] = [[message.content for message in talk.messages] for talk in export.conversations]
    # Asked again it answers 401, for then nobody is there any more who could ask.
    told["erased"] = (await erase_me.asyncio_detailed(client=client)).status_code in {202, 401}
    told["over"] = await following
    return told


def good(answer: Any) -> Any:  # or raise what is wrong
    if answer is None or isinstance(answer, m.Problem):
        raise RuntimeError(answer)
    return answer


async def listen(api: str, token: str, conversation_id: str, seen: list[str]) -> Any:
    async def show(message: Any) -> None:
        seen.append(message["content"])

    async with httpx.AsyncClient(base_url=api, headers={"Authorization": f"Bearer {token}"}) as client:
        return await follow(client, conversation_id, show, after=0)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))  # noqa: T201 - it tells what it did
