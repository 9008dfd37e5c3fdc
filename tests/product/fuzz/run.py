"""Sends an operation's generated cases and keeps count: of the answers, and of what is wrong with them."""

import math
import os
import random
import zlib
from collections import Counter
from itertools import cycle
from typing import Any, get_args

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import APIOperation, Case, CheckContext, GenerationMode, HookContext, Response
from schemathesis.core.result import Ok
from schemathesis.errors import FailureGroup
from schemathesis.openapi.checks import AllowHeaderMismatch, RejectedPositiveData, UnsupportedMethodResponse

from config import Settings
from main import create_app
from tests.product.fuzz.visitors import Role, Visitor, Whose
from tristore.http.problems import Problem

Operation = APIOperation[Any, Any, Any, Any]


def with_items(part: Any) -> Any:
    """The document in the words of OpenAPI 3.2: those of 3.1 cannot say what one event is, and schemathesis would check
    each against the schema of the whole stream."""
    if isinstance(part, dict):
        if "x-itemSchema" in part:
            return {"itemSchema": part["x-itemSchema"]}
        return {name: with_items(inner) for name, inner in part.items()}
    return [with_items(inner) for inner in part] if isinstance(part, list) else part


DOCUMENT = create_app(Settings(_env_file=None, environment="test")).openapi()
SCHEMA = schemathesis.openapi.from_dict(with_items(DOCUMENT))
SCHEMA.config.output.sanitization.update(enabled=False)  # what is shown must be what was sent, and nothing is secret
OPERATIONS: list[Operation] = [found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)]
SCHEMA.config.checks.negative_data_rejection.expected_statuses = ["4xx"]  # 414 is a refusal too
ROLES: tuple[Role, ...] = get_args(Role)
WHOSE: tuple[Whose, ...] = ("own", "own", "own", "foreign", "generated")

TOTAL = int(os.environ.get("FUZZ", "0"))
SEED = int(os.environ.get("FUZZ_SEED", random.randrange(10**6) if TOTAL else 1))
"""The long form looks for what is new, the short one must not fail by chance."""

BEYOND_THE_SCHEMA = (
    "must not contain the NUL character",
    "must be valid Unicode",
    "String should have at least 1 character",  # but it was white space
    "String should have at least 3 characters",  # and so were some of these
    "must be an email address",
    "is reserved",
    "must not contain control characters",
    "must contain a character that can be seen",
    "must have 8 to 128 characters, also",
    "must have at most 254 characters, also",
    "must not be sent together with",
    "must be at most",
    "comes from a list in another order",
    "was already used for another",
    "is too easy to guess",
    "is not right",
    "opens nothing any more",
    "keys must not be empty",
    "must not be nested deeper",
    "integers must fit",
    "numbers must be finite",
    "must not be larger than",
    "must be * or a list of tags",
)
"""Rules that JSON Schema does not know, or that depend on what is stored. What else it would allow is not refused."""


def takes_input(operation: Operation) -> bool:
    return bool(operation.body or list(operation.iter_parameters()))


# An operation without input has only a few different cases.
CASES = max(6, 2 * math.ceil(TOTAL / 2 / len(ROLES) / sum(map(takes_input, OPERATIONS))))


@SCHEMA.hook
def filter_failure(context: HookContext, failure: Exception, case: Case[Any], response: Response) -> bool:
    """What schemathesis takes for a failure and is none is dropped."""
    match failure:
        case RejectedPositiveData() if response.status_code == 422:
            return not all(error["message"].startswith(BEYOND_THE_SCHEMA) for error in response.json()["errors"])
        case RejectedPositiveData() if response.status_code == 412:  # a tag depends on what is stored
            return False
        case UnsupportedMethodResponse():
            return not is_documented(case.method, case)
        case AllowHeaderMismatch(missing_methods=[]):
            return not all(is_documented(method, case) for method in failure.undocumented_methods)
    return True


def is_documented(method: str, case: Case[Any]) -> bool:
    """Whether an operation has this path, be it another than the case's: users/register is also a users/{user_id}."""
    return SCHEMA.find_operation_by_path(method, case.formatted_path) is not None


def error_is_a_problem(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """Also the framework's own errors, on methods and media types that the document does not have."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        assert Problem.model_validate_json(response.content).status == response.status_code


class Run:
    """The cases of one operation sent by one visitor. What is found does not end it: one run shows everything."""

    def __init__(self, operation: Operation, role: Role, visitor: Visitor) -> None:
        self.name = f"{operation.label} as {role}"
        self.findings: dict[str, str] = {}
        self.statuses: Counter[int] = Counter()
        self._operation = operation
        self._visitor = visitor

    def fuzz(self) -> None:
        """Random cases, half of them valid."""
        whose = cycle(WHOSE)
        for mode in GenerationMode if takes_input(self._operation) else [GenerationMode.POSITIVE]:

            @seed(zlib.crc32(f"{SEED} {self.name}".encode()))
            @settings(
                max_examples=CASES // 2,
                phases=[Phase.generate],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(self._operation.as_strategy(generation_mode=mode))
            def send(case: Case[Any]) -> None:
                self._check(case, next(whose))

            send()

    def cover(self) -> None:
        """Each parameter at and beyond its bounds, absent, of another type; other methods and media types."""
        config = SCHEMA.config.generation_for(operation=self._operation, phase="coverage")
        modes = list(GenerationMode)
        for case in SCHEMA.iter_coverage_cases(self._operation, generation_modes=modes, generation_config=config):
            self._check(case, "own")

    def _check(self, case: Case[Any], whose: Whose) -> None:
        response = self._visitor.send(case, whose)
        self.statuses[response.status_code] += 1
        try:
            case.validate_response(response, additional_checks=[error_is_a_problem])
        except FailureGroup as failures:
            title = " and ".join(sorted({failure.title for failure in failures.exceptions}))
            self.findings.setdefault(f"{title}, {response.status_code}", failures.message)


def accepted(statuses: Counter[int]) -> int:
    return sum(count for status, count in statuses.items() if status < 300)
