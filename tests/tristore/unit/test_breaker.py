"""The circuit breaker's states."""

import time

import pytest

from tristore.cache.breaker import CircuitBreaker
from tristore.errors import Reason, StoreUnavailable


def fail(breaker: CircuitBreaker, reason: Reason = "timeout") -> None:
    with pytest.raises(StoreUnavailable), breaker:
        raise StoreUnavailable("redis", reason)


def test_opens_after_failures_in_a_row_only() -> None:
    breaker = CircuitBreaker("redis", 3, 60)
    for _ in range(5):
        fail(breaker)
        fail(breaker)
        with breaker:
            pass
    assert not breaker.is_open


def test_refuses_without_trying_while_open_and_says_what_it_saw_last() -> None:
    breaker = CircuitBreaker("redis", 2, 60)
    fail(breaker)
    breaker.count(StoreUnavailable("redis", "refuses writes", "NOREPLICAS"))
    tried = False
    with pytest.raises(StoreUnavailable) as refused, breaker:
        tried = True
    assert not tried
    assert (refused.value.reason, refused.value.cause) == ("refuses writes", "NOREPLICAS")


def test_lets_one_call_try_after_its_time_and_closes_on_success() -> None:
    breaker = CircuitBreaker("redis", 1, 0.05)
    fail(breaker)
    time.sleep(0.06)
    with breaker:
        with pytest.raises(StoreUnavailable), breaker:
            pytest.fail("a second call got through during the trial")
    assert not breaker.is_open


def test_an_exhausted_pool_of_our_own_is_not_the_stores_failure() -> None:
    breaker = CircuitBreaker("redis", 1, 60)
    fail(breaker, "busy")
    assert not breaker.is_open


def test_an_error_of_the_caller_is_not_the_stores_failure() -> None:
    breaker = CircuitBreaker("redis", 1, 60)
    with pytest.raises(ZeroDivisionError), breaker:
        raise ZeroDivisionError
    assert not breaker.is_open
