"""Mail as a target of the outbox, on a real SMTP server."""

import asyncio
import email
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from email.policy import default
from functools import partial
from pathlib import Path

import pytest

from tristore.errors import StoreUnavailable
from tristore.mail.effects import TRIED_SECONDS, Letter, SendMail
from tristore.mail.mailer import Mailer
from tristore.mail.templates import Templates
from tristore.mail.transports import MailFolder, SmtpServer, Transport
from tristore.models import new_id
from tristore.outbox.effects import Hopeless
from tristore.outbox.relay import Outbox
from tristore.stores.dsn import read_smtp
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.mail import LetterBox, letter_box
from tristore.testing.outbox import make_outbox, pass_leases, query, until_empty, well, write

PUBLIC_URL = "https://app.example.org/api"


@dataclass
class Targets:
    mailer: Mailer


class Hello(SendMail):
    address: str

    async def write(self, to: Targets) -> Letter | None:
        if self.address == "nobody":
            return None
        return Letter(self.address, "hello", "de-CH", "/open?token=t&language=de", {"name": "<Ana>"})


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    (tmp_path / "hello.en.txt").write_text("Subject: Hello\n\nGood day\n")
    (tmp_path / "hello.en.html").write_text("<p>Good day</p>\n")
    (tmp_path / "hello.de.txt").write_text("Subject: Grüezi {{ name }}\n\nGuten Tag {{ name }}\n{{ link }}\n")
    (tmp_path / "hello.de.html").write_text('<html lang="{{ language }}"><a href="{{ link }}">{{ name }}</a>\n')
    return Templates(tmp_path)


@pytest.fixture
async def box() -> AsyncIterator[LetterBox]:
    async with letter_box() as box:
        yield box


Mailing = Callable[[Transport], Mailer]


@pytest.fixture
async def mailing(templates: Templates) -> AsyncIterator[Mailing]:
    mailers = []

    def make(transport: Transport) -> Mailer:
        mailers.append(Mailer(transport, templates, sender="Us <us@example.org>", public_url=PUBLIC_URL))
        return mailers[-1]

    yield make
    for mailer in mailers:
        await mailer.close()


@pytest.fixture
def mailer(box: LetterBox, mailing: Mailing) -> Mailer:
    return mailing(SmtpServer(read_smtp(box.dsn), "app.example.org"))


@pytest.fixture
async def outbox(fresh: Stores, mailer: Mailer) -> AsyncIterator[Outbox]:
    pings = {"redis": well, "mongodb": well, "mail": mailer.ping}
    outbox = make_outbox(fresh, Targets(mailer), max_attempts=3, pings=pings)
    outbox.start()
    yield outbox
    await outbox.close()


async def state(stores: Stores, mail: SendMail) -> tuple[bool, str | None, int]:
    sql = "SELECT dead, last_error, attempts FROM outbox_streams WHERE aggregate = :it AND pending > 0"
    [row] = await query(stores, sql, it=mail.aggregate)
    return tuple(row)


async def test_a_mail_says_who_it_is_from_what_it_is_called_and_where_to_go(
    outbox: Outbox, fresh: Stores, box: LetterBox
) -> None:
    mail = Hello(address="ana@example.com")
    await write(outbox, fresh, [mail])
    came = await box.to("ana@example.com")
    assert (came["From"], came["Subject"]) == ("Us <us@example.org>", "Grüezi <Ana>")
    assert came["Message-ID"] == f"<{mail.mail_id}@app.example.org>"
    assert came["Auto-Submitted"] == "auto-generated"
    assert came["Date"]
    plain, html = came.iter_parts()
    assert plain.get_content().splitlines() == ["Guten Tag <Ana>", f"{PUBLIC_URL}/open?token=t&language=de"]
    assert f'href="{PUBLIC_URL}/open?token=t&amp;language=de">&lt;Ana&gt;' in html.get_content()
    await until_empty(fresh)


async def test_no_request_talks_to_the_mail_server(fresh: Stores, box: LetterBox, mailer: Mailer) -> None:
    outbox = make_outbox(fresh, Targets(mailer))  # no relay runs
    await write(outbox, fresh, [Hello(address="ana@example.com")], deliver=True)
    assert not mailer.counts
    assert len(await query(fresh, "SELECT 1 FROM outbox")) == 1


async def test_what_is_refused_for_good_is_parked_at_once_and_holds_back_no_other(
    outbox: Outbox, fresh: Stores, box: LetterBox, mailer: Mailer
) -> None:
    box.refuse = lambda recipient: "550 5.1.1 no such user ana" if recipient.startswith("ana@") else None
    refused, taken = Hello(address="ana@example.com"), Hello(address="ben@example.com")
    await write(outbox, fresh, [refused, taken])
    await box.to("ben@example.com")

    async def is_parked() -> bool:
        return await state(fresh, refused) == (True, "Hopeless (550)", 1)

    await until(is_parked, 20)
    assert mailer.counts == {"refused": 1, "sent": 1}


async def test_what_is_refused_for_now_is_sent_later_and_never_parked(
    outbox: Outbox, fresh: Stores, box: LetterBox, mailer: Mailer
) -> None:
    box.refuse = lambda recipient: "450 4.2.1 try later"
    mail = Hello(address="ana@example.com")
    await write(outbox, fresh, [mail])
    for refusals in range(1, 6):  # more than an effect may fail by its own fault
        await until(partial(at_least, mailer, "refused", refusals), 20)
        await pass_leases(fresh)
    assert (await state(fresh, mail))[:2] == (False, "NotYet")
    box.refuse = lambda recipient: None
    await pass_leases(fresh)
    await box.to("ana@example.com")
    await until_empty(fresh)


async def at_least(mailer: Mailer, event: str, number: int) -> bool:
    return mailer.counts[event] >= number


async def test_after_a_day_a_mail_is_given_up(box: LetterBox, mailer: Mailer) -> None:
    box.refuse = lambda recipient: "450 4.2.1 try later"
    then = (new_id().int >> 80) - int((TRIED_SECONDS + 1) * 1000)
    old = type(new_id())(int=(then << 80) | (new_id().int & ((1 << 80) - 1)))
    with pytest.raises(Hopeless, match="450"):
        await Hello(address="ana@example.com", mail_id=old).apply(Targets(mailer))


async def test_while_the_server_is_down_mail_waits_and_all_of_it_comes_once(
    outbox: Outbox, fresh: Stores, box: LetterBox, mailer: Mailer
) -> None:
    mails = [Hello(address=f"a{number}@example.com") for number in range(20)]
    async with box.closed():
        await write(outbox, fresh, mails)

        async def is_paused() -> bool:
            return outbox._pauses.is_paused("mail")

        await until(is_paused, 20)
        attempts = await query(fresh, "SELECT max(attempts) AS most FROM outbox_streams")
        assert attempts[0].most == 0
    await until_empty(fresh, 30)
    assert sorted(str(mail["To"]) for mail in box.mails) == sorted(mail.address for mail in mails)


async def test_a_mail_whose_connection_is_lost_after_it_comes_again_under_the_same_id(
    outbox: Outbox, fresh: Stores, box: LetterBox
) -> None:
    box.hang.clear()
    mail = Hello(address="ana@example.com")
    await write(outbox, fresh, [mail])
    await box.to("ana@example.com")
    await box.stop()  # the server has it, and has not said so
    box.hang.set()
    await box.start()

    async def it_came_again() -> bool:
        return len(box.mails) == 2

    await until(it_came_again, 20)
    assert {one["Message-ID"] for one in box.mails} == {f"<{mail.mail_id}@app.example.org>"}
    await until_empty(fresh, 30)


async def test_a_server_that_is_slow_gets_a_mail_once(outbox: Outbox, fresh: Stores, box: LetterBox) -> None:
    """It thinks for longer than a stream may be leased. Whoever asks again waits for the same mail."""
    box.hang.clear()
    mail = Hello(address="ana@example.com")
    await write(outbox, fresh, [mail])
    await box.to("ana@example.com")

    async def has_been_given_back() -> bool:
        rows = await query(fresh, "SELECT refusals FROM outbox_streams WHERE aggregate = :it", it=mail.aggregate)
        return bool(rows[0].refusals)

    await until(has_been_given_back, 20)
    await pass_leases(fresh)
    box.hang.set()
    await until_empty(fresh, 30)
    assert len(box.mails) == 1


async def test_to_whom_there_is_not_any_more_nothing_is_sent(
    outbox: Outbox, fresh: Stores, box: LetterBox, mailer: Mailer
) -> None:
    await write(outbox, fresh, [Hello(address="nobody")])
    await until_empty(fresh)
    assert (mailer.counts, box.mails) == ({"nobody": 1}, [])


async def test_without_tls_a_server_gets_no_word_of_a_mail(box: LetterBox, mailing: Mailing) -> None:
    mailer = mailing(SmtpServer(read_smtp(f"smtp://us:secret@127.0.0.1:{box.port}"), "app.example.org"))
    with pytest.raises(StoreUnavailable) as caught:
        await Hello(address="ana@example.com").apply(Targets(mailer))
    assert (caught.value.store, box.mails) == ("mail", [])
    assert "secret" not in f"{caught.value!r} {caught.value.cause}"


async def test_a_closed_port_and_a_silent_one_are_a_server_that_is_down(box: LetterBox) -> None:
    server = SmtpServer(read_smtp(box.dsn), "app.example.org")
    await server.ping()
    async with box.closed():
        with pytest.raises(StoreUnavailable) as caught:
            await server.ping()
        assert caught.value.reason == "unreachable"

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(say_nothing, "127.0.0.1", box.port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await server.ping()
        silent.close()


async def test_in_letters_of_any_script(box: LetterBox, mailer: Mailer) -> None:
    await Hello(address="ana@bücher.example").apply(Targets(mailer))
    assert [str(mail["To"]) for mail in box.mails] == ["ana@xn--bcher-kva.example"]


async def test_on_a_developers_machine_each_mail_is_a_file(tmp_path: Path, mailing: Mailing) -> None:
    targets = Targets(mailing(MailFolder(tmp_path / "mail")))
    mails = [Hello(address="ana@example.com"), Hello(address="ben@example.com")]
    for mail in (*mails, mails[0]):  # once more: the same file
        await mail.apply(targets)
    files = sorted((tmp_path / "mail").glob("*.eml"))
    assert [file.stem for file in files] == [str(mail.mail_id) for mail in mails]
    kept = email.message_from_bytes(files[0].read_bytes(), policy=default)
    assert (kept["To"], kept["Subject"]) == ("ana@example.com", "Grüezi <Ana>")
    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700


def test_a_language_without_texts_gets_english(templates: Templates) -> None:
    assert "Good day" in templates.render("hello", "pt-BR", "txt")
    assert "Guten Tag" in templates.render("hello", "de", "txt", name="Ana", link="l")


@pytest.mark.parametrize(
    ("dsn", "problem"),
    [
        ("http://mail", "must start with smtp:// or smtps://"),
        ("smtp://", "must name one host"),
        ("smtp://a,b", "must name one host"),
        ("smtp://a/b", "must name one host"),
        ("smtp://user@a", "without a password"),
        ("smtps://a?starttls=never", "unknown"),
    ],
)
def test_a_dsn_that_leads_nowhere_is_refused(dsn: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_smtp(dsn)
