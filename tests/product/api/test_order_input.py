"""Each field of an order with what it must not hold."""

from typing import Any

import httpx
import pytest

from models.order import EXAMPLE
from tests.product.bad_input import BAD_TEXT, SECRET, assert_names, send
from tests.product.people import register


@pytest.mark.parametrize("kind", BAD_TEXT)
async def test_a_bad_course_names_its_field(client: httpx.AsyncClient, kind: str) -> None:
    assert_names(await send(client, "POST", "/orders", EXAMPLE | {"course_id": BAD_TEXT[kind]}), "course_id")


@pytest.mark.parametrize("bad", [None, 0, -1, 101, 1.5, 10**30, 1e300, float("nan"), "1", True, [1]])
async def test_a_bad_quantity_names_its_field(client: httpx.AsyncClient, bad: Any) -> None:
    assert_names(await send(client, "POST", "/orders", EXAMPLE | {"quantity": bad}), "quantity")


@pytest.mark.parametrize("bad", [-1, 1.5, 2**63, float("nan"), "1", True, [1]])
async def test_a_bad_price_names_its_field(client: httpx.AsyncClient, bad: Any) -> None:
    assert_names(await send(client, "POST", "/orders", EXAMPLE | {"expected_price_cents": bad}), "expected_price_cents")


@pytest.mark.parametrize("name", ["rogue", "\ud800"])
async def test_an_unknown_field_is_refused(client: httpx.AsyncClient, name: str) -> None:
    answer = await send(client, "POST", "/orders", EXAMPLE | {name: SECRET})
    assert answer.status_code == 422
    assert SECRET not in answer.text


@pytest.mark.parametrize("bad", ["x", "", "-1", str(2**63), "\x00"])
@pytest.mark.parametrize("name", ["limit", "cursor"])
async def test_a_bad_query_names_its_parameter(client: httpx.AsyncClient, name: str, bad: str) -> None:
    answer = await client.get("/orders", headers=await register(client), params={name: bad})
    assert_names(answer, name)


@pytest.mark.parametrize("bad", ["x", "%00", "123", "%ed%a0%80", "z" * 5000])
async def test_a_bad_id_in_the_path_is_refused(client: httpx.AsyncClient, bad: str) -> None:
    answer = await client.get(f"/orders/{bad}", headers=await register(client))
    assert answer.status_code in {404, 414, 422}
