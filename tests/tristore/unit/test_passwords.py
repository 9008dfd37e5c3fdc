"""Which passwords are refused, and what the caller is told."""

import re
import time

import pytest
from passlib.context import CryptContext
from pydantic import SecretStr

from tristore.errors import InvalidInput
from tristore.fields import LONGEST_PASSWORD
from tristore.passwords import WEAK, PasswordHasher

OWN = ("mia_fontaine", "emil.tischbein@example.com", "Zazie M\u00fcller-Queneau")
HASHER = PasswordHasher("Chatterbox", CryptContext(schemes=["plaintext"]))
L33T = "4@8({[<36!170$5%2+"


async def refusal(password: str) -> str:
    """What the caller is told; empty when it is taken."""
    try:
        await HASHER.refuse_weak(SecretStr(password), "new_password", OWN)
    except InvalidInput as error:
        return f"{error.field} {error}"
    return ""


@pytest.mark.parametrize(
    "password",
    [
        "password123",
        "P@ssw0rd2024",
        "1q2w3e4r5t6y",
        "qwertzuiop",
        "abcdefghijklmno",
        "a" * LONGEST_PASSWORD,
        "\u5bc6\u7801" * 4,
    ],
)
async def test_what_is_guessed_soon_is_refused_however_long(password: str) -> None:
    told = await refusal(password)
    assert told.startswith("new_password is too easy to guess")
    assert "8 to 128 characters" in told
    assert "four words" in told
    assert password not in told


@pytest.mark.parametrize("name", ["mia_fontaine", "Fontaine", "tischbein", "M\u00fcller", "Queneau", "chatterbox"])
async def test_ones_own_names_do_not_count(name: str) -> None:
    assert await refusal(f"{name}2024")
    assert not await refusal(f"{name} drinks cold tea")


@pytest.mark.parametrize(
    "password",
    [
        "correct horse 9",
        "correcthorsebattery",
        "zbgkqpvmwxahtrd",
        "and then nobody came to the third party of the year",
        "9f3kd02mvq",
        "\u0441\u043e\u0432\u0435\u0440\u0448\u0435\u043d\u043d\u043e \u0441\u0435\u043a\u0440\u0435\u0442\u043d\u043e",
    ],
)
async def test_nothing_but_guesses_counts_no_kinds_of_characters(password: str) -> None:
    assert not await refusal(password)


async def test_why_is_said_in_words_of_our_own() -> None:
    pattern = "new_password " + re.escape(WEAK.format(why="WHY", shortest=8, longest=128)).replace(
        "WHY", '(: [a-z][A-Za-z0-9 "-]+)?'
    )
    for password in ("password1", "aaaaaaaaaa", "mia_fontaine", "13.05.1987", "qwertyuiop", "abcdefgh", "jennifer"):
        told = await refusal(password)
        assert re.fullmatch(pattern, told), told
        assert password not in told


async def test_the_longest_one_holds_the_loop_for_a_moment_only() -> None:
    """The worst that were found. Without a bound the first takes half a second, 32 characters of the second 25 ms."""

    async def taken(password: str) -> float:
        began = time.thread_time()
        await refusal(password)
        return time.thread_time() - began

    for password in ((L33T * 10)[:LONGEST_PASSWORD], "56021!4@(500%+7<4[!1${(0%$|%$+!0"):
        assert min([await taken(password) for _ in range(5)]) < 0.02
