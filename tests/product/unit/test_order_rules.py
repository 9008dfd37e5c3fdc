"""Rules about orders that no linter knows."""

from tests.product.machinery import machinery_lines

# An order that somebody places, not one in which things stand. `order_by` is SQL.
WORDS = r"(?i:seat)|\borders\b|\bOrder[A-Z(]|\border_(?!by)\w|\b(an|your|placed|pending|confirmed|cancelled) order\b"


def test_the_machinery_has_no_word_of_orders() -> None:
    assert machinery_lines(WORDS) == []
