"""Commands, run as a person runs them."""

import os


def environment(**more: str) -> dict[str, str]:
    """Ours, without what tells a make that it runs within another one, or would lead it to other stores."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
    return {name: value for name, value in ours.items() if not name.endswith("_DSN")} | more
