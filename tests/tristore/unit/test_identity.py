"""One form for each name, address and password."""

from collections.abc import Callable

import pytest
from passlib.context import CryptContext
from pydantic import SecretStr

from tristore.identity import account_name, email_address, shown
from tristore.passwords import PasswordHasher

QUICK = CryptContext(schemes=["argon2"], argon2__memory_cost=64, argon2__time_cost=1)
COMPOSED, DECOMPOSED = "caf\u00e9 au lait 9", "cafe\u0301 au lait 9"


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (" Ana@EXAMPLE.com ", "ana@example.com"),
        ("ana@xn--bcher-kva.example", "ana@b\u00fccher.example"),
        ("ANA@BU\u0308CHER.example", "ana@b\u00fccher.example"),
        ("u\u0308na@example.com", "\u00fcna@example.com"),
        ("U\u0308NA@example.com", "\u00fcna@example.com"),
        ("ana@\uff45xample.com", "ana@example.com"),
    ],
)
def test_an_address_has_one_form(sent: str, meant: str) -> None:
    assert email_address(sent) == account_name(sent) == meant
    assert email_address(meant) == meant


@pytest.mark.parametrize("sent", ["", "ana", "Ana <ana@example.com>", "ana@", "@example.com", "\u00adana@example.com"])
def test_what_is_no_address_is_not_repeated(sent: str) -> None:
    with pytest.raises(ValueError, match=r"^must be an email address, such as name@domain\.example$"):
        email_address(sent)


@pytest.mark.parametrize("sent", ["Ana_1", " ana_1", "ANA_1\t", "\uff21na_1"])
def test_a_username_has_one_form(sent: str) -> None:
    assert account_name(sent) == "ana_1"


@pytest.mark.parametrize(
    "text",
    [
        "Ana",
        "\u5b89\u5a1c",
        "\U0001f469\u200d\U0001f680",  # a woman, a joiner, a rocket
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England: tags
        "\u2764\ufe0f",  # a heart and the selector of its colour
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
        "\u200fana",  # a mark of direction: it overrides none
    ],
)
def test_what_can_be_seen_may_be_shown(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize("text", ["a\nb", "a\x07", "a\x85b", "a\u2028b", "a\u202egnp.exe", "\u2066a", "\x7fa"])
def test_what_moves_the_text_around_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must not contain control characters"):
        shown(text)


@pytest.mark.parametrize(
    "text", ["\u200b", "\u200d\u2060", "\u3164", "\u2800", "\u0301", "\ufe0f", "\u00ad", "\U000e0061"]
)
def test_what_nobody_can_see_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must contain a character that can be seen"):
        shown(text)


async def test_a_password_is_right_however_it_was_encoded() -> None:
    hasher = PasswordHasher("service", QUICK)
    for set_as in (COMPOSED, DECOMPOSED):
        kept = await hasher.hash(SecretStr(set_as))
        for sent in (COMPOSED, DECOMPOSED):
            assert await hasher.verify(SecretStr(sent), kept) == (True, None)


async def test_a_hash_of_the_raw_password_is_replaced() -> None:
    hasher = PasswordHasher("service", QUICK)
    old = QUICK.hash(DECOMPOSED)
    is_right, better = await hasher.verify(SecretStr(DECOMPOSED), old)
    assert is_right
    assert better
    assert QUICK.verify(COMPOSED, better)
    assert await hasher.verify(SecretStr(COMPOSED), old) == (False, None)


@pytest.mark.parametrize("password", [COMPOSED, DECOMPOSED])
async def test_an_unknown_user_costs_as_many_hashes_as_a_wrong_password(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = PasswordHasher("service", QUICK)
    kept = QUICK.hash("another one")
    work: list[str] = []

    def noted(does: Callable[[str, str], object]) -> Callable[[str, str], object]:
        def run(secret: str, hash: str) -> object:
            work.append(secret)
            return does(secret, hash)

        return run

    for name in ("verify", "verify_and_update"):
        monkeypatch.setattr(QUICK, name, noted(getattr(QUICK, name)))
    assert (await hasher.verify(SecretStr(password), kept))[0] is False
    of_known, work[:] = len(work), []
    assert (await hasher.verify(SecretStr(password), None))[0] is False
    assert len(work) == of_known == 1 + (password == DECOMPOSED)
