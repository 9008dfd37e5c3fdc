"""NearCache by itself: what is kept, for how long, and how much of it."""

from collections.abc import Callable

import pytest

from tristore.cache.near import NearCache


@pytest.fixture
def near() -> NearCache:
    return NearCache(3, lambda: True)


def test_keeps_what_was_read_under_a_claim(near: NearCache) -> None:
    near.keep("a", near.claim("a"), b"1", 60)
    assert near.get("a") == b"1"


def test_a_claim_serves_one_fill(near: NearCache) -> None:
    claim = near.claim("a")
    near.keep("a", claim, b"1", 60)
    near.drop(["a"])
    near.keep("a", claim, b"1", 60)
    assert near.get("a") is None


@pytest.mark.parametrize("change", [lambda near: near.drop(["a"]), NearCache.clear], ids=["drop", "clear"])
def test_a_change_takes_the_claim_and_a_later_reader_has_another(
    near: NearCache, change: Callable[[NearCache], None]
) -> None:
    early = near.claim("a")
    change(near)
    late = near.claim("a")
    near.keep("a", early, b"1", 60)
    assert near.get("a") is None
    near.keep("a", late, b"2", 60)
    assert near.get("a") == b"2"


def test_a_change_of_one_key_leaves_the_others(near: NearCache) -> None:
    claim = near.claim("a")
    near.drop(["b"])
    near.keep("a", claim, b"1", 60)
    near.drop(["b"])
    assert near.get("a") == b"1"


def test_nothing_is_served_or_kept_while_the_feed_is_not_known_to_live() -> None:
    lives = True
    near = NearCache(3, lambda: lives)
    near.keep("a", near.claim("a"), b"1", 60)
    lives = False
    assert near.get("a") is None
    near.keep("b", near.claim("b"), b"1", 60)
    lives = True
    assert (near.get("a"), near.get("b")) == (b"1", None)


def test_an_entry_ends_with_its_ceiling_counted_from_the_claim(near: NearCache) -> None:
    claim = near.claim("a")
    claim.at -= 10
    near.keep("a", claim, b"1", 9)
    assert near.get("a") is None


def test_holds_no_more_entries_than_allowed_and_lets_the_oldest_go(near: NearCache) -> None:
    keys = [f"k{i}" for i in range(10)]
    for key in keys:
        near.keep(key, near.claim(key), b"1", 60)
    assert [key for key in keys if near.get(key)] == keys[-3:]


def test_nothing_is_kept_under_a_claim_that_was_release(near: NearCache) -> None:
    claim = near.claim("a")
    near.release("a", claim)
    near.keep("a", claim, b"1", 60)
    assert near.get("a") is None
    assert near.claim("a") is not claim
