"""How much of a list an export reads at once."""

import json
import uuid
from collections.abc import Sequence

import pytest
from pydantic import BaseModel

from tristore.models import Page, cursor_page, new_id
from tristore.personal import FIRST, PAGE, PAGE_BYTES, joined, listed


class Item(BaseModel):
    id: uuid.UUID
    text: str


async def limits(items: Sequence[Item]) -> list[int]:
    """How many items each page may have had, once the list was found to be whole."""
    asked: list[int] = []

    async def read(limit: int, cursor: uuid.UUID | None) -> Page[Item]:
        asked.append(limit)
        first = next((i + 1 for i, item in enumerate(items) if item.id == cursor), 0)
        return cursor_page(items[first : first + limit + 1], limit)

    written = b"".join([piece async for piece in listed(read, joined)])
    assert [item["id"] for item in json.loads(written)] == [str(item.id) for item in items]
    return asked


def items(count: int, size: int) -> list[Item]:
    return [Item(id=new_id(), text="x" * size) for _ in range(count)]


async def test_pages_of_small_items_grow_up_to_a_bound() -> None:
    asked = await limits(items(1200, 1))
    assert asked[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert max(asked) <= PAGE


@pytest.mark.parametrize("size", [1000, 10_000, PAGE_BYTES, 3 * PAGE_BYTES])
async def test_pages_of_large_items_have_few(size: int) -> None:
    asked = await limits(items(100, size))
    assert all(limit * size <= PAGE_BYTES or limit == 1 for limit in asked[1:])


async def test_what_becomes_larger_and_smaller_again_is_all_there() -> None:
    asked = await limits([*items(100, 10), *items(30, PAGE_BYTES), *items(300, 10)])
    assert asked[4] < FIRST
    assert asked[-1] > FIRST
