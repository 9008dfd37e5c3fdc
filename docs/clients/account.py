"""A day of an account, on a connection that may break at any time: `python account.py http://localhost:8000`.

It reads its mails at `/mail`, where `make run` shows them. `chatlingo_client` is what openapi-python-client has made of
the API's document."""

import asyncio
import json
import re
import sys
import uuid
from typing import Any

import httpx
from chatlingo_client import AuthenticatedClient, Client
from chatlingo_client import models as m
from chatlingo_client.api.auth import list_sessions, sign_in
from chatlingo_client.api.links import request_password_reset, reset_password, verify_email
from chatlingo_client.api.users import erase_me, read_me, register, update_me
from retries import Retry

FIRST, SECOND = "correct horse 9", "battery staple 7"


async def main(api: str) -> dict[str, Any]:
    name = f"ana-{uuid.uuid4().hex[:8]}"
    before, after = f"{name}@example.com", f"{name}@example.org"
    connection = {"base_url": api, "httpx_args": {"transport": Retry()}}
    client = Client(**connection)

    async def signed_in(device: str, password: str) -> AuthenticatedClient:
        form = m.SignIn(name, password, device=device)
        token = good(await sign_in.asyncio(client=client, body=form)).access_token
        return AuthenticatedClient(token=token, **connection)

    async def verify(address: str) -> None:
        link = m.Verification(await mailed(api, address, "verify-email"))
        done(await verify_email.asyncio_detailed(client=client, body=link))

    async def devices(of: AuthenticatedClient) -> list[str]:
        return sorted({session.device for session in good(await list_sessions.asyncio(client=of)).items})

    good(await register.asyncio(client=client, body=m.Registration(name, before, FIRST)))
    await verify(before)
    phone, laptop = await signed_in("phone", FIRST), await signed_in("laptop", FIRST)
    told: dict[str, Any] = {"devices": await devices(laptop)}

    done(await request_password_reset.asyncio_detailed(client=client, body=m.ResetRequest(before)))
    choice = m.PasswordReset(await mailed(api, before, "reset-password"), SECOND)
    done(await reset_password.asyncio_detailed(client=client, body=choice))
    laptop = await signed_in("laptop", SECOND)
    told["after the reset"] = await devices(laptop)
    told["phone"] = (await read_me.asyncio_detailed(client=phone)).status_code

    good(await update_me.asyncio(client=laptop, body=m.ProfileUpdate(email=after)))
    await verify(after)
    me = good(await read_me.asyncio(client=laptop))
    told["moved"] = me.email == after and me.email_verified
    # Asked again it answers 401, for then nobody is there any more who could ask.
    told["erased"] = (await erase_me.asyncio_detailed(client=laptop)).status_code in {202, 401}
    told["over"] = (await sign_in.asyncio_detailed(client=client, body=m.SignIn(name, SECOND))).status_code
    return told


async def mailed(api: str, address: str, page: str) -> str:
    """The token of the newest link to this page, once its mail has come."""
    link = re.compile(rf"to {re.escape(address)}</p><pre>(?:(?!</pre>).)*?/pages/{page}\?token=([\w-]+)", re.DOTALL)
    async with httpx.AsyncClient(base_url=api, transport=Retry()) as client:
        while not (found := link.search((await client.get("/mail")).text)):
            await asyncio.sleep(0.2)
    return found[1]


def good(answer: Any) -> Any:  # or raise what is wrong
    if answer is None or isinstance(answer, m.Problem):
        raise RuntimeError(answer)
    return answer


def done(answer: Any) -> None:
    # A token works once. Asked again it answers 422, for then it is used up.
    if answer.status_code not in {202, 204, 422}:
        raise RuntimeError(answer)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))  # noqa: T201 - it tells what it did
