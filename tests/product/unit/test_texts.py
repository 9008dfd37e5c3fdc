"""How long a text may be, by the types of the models."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from models.conversation import Title as ConversationTitle
from models.course import Title as CourseTitle
from models.user import DisplayName


@pytest.mark.parametrize(("text", "longest"), [(ConversationTitle, 200), (CourseTitle, 200), (DisplayName, 80)])
def test_a_text_is_as_long_as_it_was_sent_also_when_it_is_stripped(text: Any, longest: int) -> None:
    adapter = TypeAdapter(text)
    assert adapter.validate_python(" " + "x" * (longest - 1)) == "x" * (longest - 1)
    with pytest.raises(ValidationError, match=f"at most {longest} characters"):
        adapter.validate_python(" " + "x" * longest)
