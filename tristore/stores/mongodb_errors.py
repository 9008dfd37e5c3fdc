"""What the errors of MongoDB's drivers mean: Motor's and PyMongo's."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from bson.errors import BSONError
from pymongo import errors

from tristore.errors import Reason
from tristore.stores.translation import Verdict, by_code, translating

# The server's code (src/mongo/base/error_codes.yml of MongoDB) -> why it could not serve us. None: the operation's own
# fault. What is not here is unknown: codes of commands that we do not send, and numbers that have no name.
CODES: dict[str, Reason | None] = by_code(
    {
        # No primary, stepping or shutting down, one that is new and has not read its keys yet (211), a router that
        # cannot reach a shard, or the DSN is wrong (18).
        "unreachable": "6 7 11 18 70 71 74 91 94 101 133 141 145 149 172 173 174 188 189 190 199 211 214 230 231 240 "
        "279 303 334 354 391 398 404 9001 10058 10107 11600 11602 13435 13436 56846 91331",
        # The operation's time, or that for which a majority was waited for: it may be written. Asked again, it shows.
        "timeout": "50 64 89 202 262 290 407",
        # Conflicts, overload, an operation or cursor that was killed, stale routing, no majority snapshot yet.
        "busy": "24 43 46 63 107 112 117 134 136 143 150 175 187 208 215 225 237 239 246 249 250 251 272 273 285 314 "
        "343 355 363 365 388 402 412 433 449 450 453 462 9996 11601 12586 12587 13388 46841 50915 10045600",
        # Quota (8000, also whatever else Atlas refuses), disk (14031), blocked by an administrator (371), a write
        # concern that no set of members can give (100), files and data that are broken.
        "refuses writes": "1 8 37 38 39 42 51 75 76 79 80 96 100 158 229 264 269 301 371 8000 14031",
        "not permitted": "13",
        None: "2 3 4 5 9 10 12 14 15 16 17 19 20 21 22 26 27 28 29 30 40 47 48 52 53 54 55 56 57 59 61 65 66 67 68 72 "
        "73 81 84 85 86 97 111 115 116 121 123 139 140 142 146 148 151 153 159 160 165 166 167 168 169 170 171 "
        "181 182 195 197 201 206 207 223 224 226 227 232 233 235 238 241 242 257 261 263 271 291 292 322 323 324 "
        "347 349 352 357 359 361 377 378 386 395 411 10003 10334 11000 11001 12582 13113 13297 17280 31082 40413 "
        "40414 40415 50768 57986",
    }
)
# What has no code that we know, along the error's MRO. None: the operation's own fault, not translated.
REASONS: dict[type[BaseException], Reason | None] = {
    errors.ConnectionFailure: "unreachable",
    errors.NetworkTimeout: "timeout",
    errors.WaitQueueTimeoutError: "busy",
    errors.ExecutionTimeout: "timeout",
    errors.WTimeoutError: "timeout",
    # DNS does not tell who the members are (mongodb+srv://), or one is too old. The DSN itself was read at the start.
    errors.ConfigurationError: "unreachable",
    errors.PyMongoError: None,
    BSONError: None,
    TimeoutError: "timeout",
    OSError: "unreachable",
}
ASK_AGAIN = ("RetryableWriteError", "TransientTransactionError", "RetryableError", "SystemOverloadedError")
"""Labels by which a server says that asking again helps, whatever its code."""
DUPLICATE = 11000


def translate_errors(*, raise_unknown: bool = False) -> AbstractContextManager[None]:
    """A block in which errors that mean "not available now" become StoreUnavailable."""
    return translating("mongodb", reason_of, cause_of, raise_unknown=raise_unknown)


def reason_of(error: BaseException) -> Verdict:
    """Why MongoDB was not available, or None when the error is not about that."""
    code = str(_refusal(error).get("code"))
    if code in CODES:
        return CODES[code]
    reason = next((REASONS[cls] for cls in type(error).__mro__ if cls in REASONS), None)
    if reason is None and isinstance(error, errors.OperationFailure) and code != "None":
        return "busy" if any(map(error.has_error_label, ASK_AGAIN)) else "unknown"
    return reason


def cause_of(error: BaseException) -> str:
    """What operators are told: the server's code and its name, else the name of the driver's error."""
    refusal = _refusal(error)
    named = " ".join(str(refusal[key]) for key in ("code", "codeName") if refusal.get(key) is not None)
    return named or type(error).__name__


def refusal(said: Mapping[str, Any]) -> errors.OperationFailure:
    """What the server said to one write of many, as an error. The driver's own holds the documents in its text."""
    kept = {key: said[key] for key in ("code", "codeName") if key in said}
    return errors.OperationFailure("not inserted", kept.get("code"), kept)


def _refusal(error: BaseException) -> Mapping[str, object]:
    """The server's own words: of a bulk write those on why it was not acknowledged, else on what is no duplicate."""
    if not isinstance(error, errors.OperationFailure | errors.NotPrimaryError):
        return {}
    details = error.details if isinstance(error.details, Mapping) else {}
    failed = [*details.get("writeConcernErrors", ()), *details.get("writeErrors", ())]
    if failed:
        return next((one for one in failed if one.get("code") != DUPLICATE), failed[0])
    return {"code": getattr(error, "code", None), **details}
