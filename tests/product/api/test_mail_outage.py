"""A mail server that is away for an hour, which is shortened: what is owed is made an hour old."""

import httpx

from tests.product.mails import joined, until_no_mail_is_owed
from tests.product.people import account, sign_in
from tristore.stores.stores import Stores
from tristore.testing.mail import LetterBox
from tristore.testing.outbox import query

AN_HOUR_AGO = "UPDATE outbox SET created_at = created_at - interval '1 hour' WHERE store = 'mail'"
WAITING = "SELECT count(*) AS mails, max(attempts) AS attempts FROM outbox_streams WHERE store = 'mail' AND pending > 0"


async def test_requests_answer_as_usual_and_each_mail_comes_once_under_one_id(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    moved = account()["email"].lower()
    async with box.closed():
        people = [await joined(mailed) for _ in range(3)]
        for person in people:
            answer = await mailed.post("/auth/password-reset", json={"email": person["email"]})
            assert answer.status_code == 202
        headers = await sign_in(mailed, people[0]["username"], people[0]["password"])
        assert (await mailed.patch("/users/me", headers=headers, json={"email": moved})).status_code == 200
        assert (await mailed.post("/conversations", headers=headers, json={"title": "t"})).status_code == 201
        assert (await mailed.get("/health/ready")).status_code == 200
        await query(mail_stores, AN_HOUR_AGO)
        [waiting] = await query(mail_stores, WAITING)
        assert (waiting.mails, waiting.attempts) == (8, 0)  # it is not the mails' fault
    await until_no_mail_is_owed(mail_stores)
    ids = [mail["Message-ID"] for mail in box.mails]
    # The link of the first registration would go to an address that its owner has left since: it is not sent.
    expected = [person["email"].lower() for person in people for _ in range(2)] + [moved]
    assert sorted(str(mail["To"]).lower() for mail in box.mails) == sorted(expected)
    assert len(ids) == len(set(ids)) == 7
