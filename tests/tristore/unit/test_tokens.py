"""Tokens that stand for somebody."""

from base64 import urlsafe_b64decode
from functools import reduce
from operator import and_, or_

from tristore.tokens import TOKEN, hash_of, new_token

ALL = 2**256 - 1


def test_a_token_has_256_random_bits_and_no_two_are_alike() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == len({hash_of(token) for token in tokens}) == 1000
    assert all(TOKEN.fullmatch(token) for token in tokens)
    contents = [urlsafe_b64decode(f"{token}=") for token in tokens]
    assert {len(content) for content in contents} == {32}
    numbers = [int.from_bytes(content) for content in contents]
    assert (reduce(or_, numbers), reduce(and_, numbers)) == (ALL, 0)  # each bit is sometimes set, and sometimes not
