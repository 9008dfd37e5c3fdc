"""Names in the environment, in the secrets' folder and in `.env` that look like settings and are none: most often one
that is misspelt."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

import structlog
from dotenv import dotenv_values

from tristore.settings import TristoreSettings, secrets_folder

OTHERS = re.compile(r"\w+_(PASSWORD|PORT(_\w+)?|SERVICE_(HOST|PORT)\w*)|SECRETS_DIR")
"""What compose, Kubernetes and the server read or set beside them."""
FAMILY = 3
"""So many settings with the same first word are a family. What else has it looks like one of them."""
ALIKE = 0.85

log = structlog.get_logger("tristore")


def warn_of_misspelt(settings: TristoreSettings) -> None:
    """Log each once, by name and never by value."""
    file = settings.model_config.get("env_file")
    in_file = dotenv_values(str(file)) if file and settings.environment != "test" else {}
    folder = secrets_folder()
    around = [*os.environ, *(file.name for file in (folder.iterdir() if folder else ()))]
    for name, meant in misspelt(type(settings), around, in_file):
        log.warning("unknown_setting", name=name, meant=meant, cure="It is not read. .env.example lists all settings.")


def misspelt(
    cls: type[TristoreSettings], environment: Iterable[str], file: Iterable[str]
) -> Iterator[tuple[str, str | None]]:
    """Each such name, and the setting that it is most like. In the file nothing else is expected; in the environment
    there is much that is no business of ours. What begins with the service's name is: settings have no prefix."""
    known = [name.upper() for name in cls.model_fields]
    own = f"{cls.model_fields['app_name'].default.upper()}_"
    families = {word for word, number in Counter(map(_family, known)).items() if number >= FAMILY}
    for name in sorted({*environment, *file}):
        upper = name.upper()
        if upper in known or OTHERS.fullmatch(upper):
            continue
        meant = _prefixed(upper, known, own) or next(iter(get_close_matches(upper, known, 1, ALIKE)), None)
        if meant or name in file or upper.startswith(own) or _family(upper) in families:
            yield name, meant


def _prefixed(name: str, known: Iterable[str], own: str) -> str | None:
    """The setting that has something before it. Others than DSNs are the end of much else, as in OTEL_LOG_LEVEL."""
    ends = (one for one in known if name == own + one or (one.endswith("_DSN") and name.endswith(f"_{one}")))
    return max(ends, key=len, default=None)


def _family(name: str) -> str:
    return name.partition("_")[0]
