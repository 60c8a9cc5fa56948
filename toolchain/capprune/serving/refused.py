"""A rejected request, and its JSON document."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from capprune_runtime.errors import CapPruneError, NotEnoughMemory, PhotoError, UsageError

SCHEMA_VERSION = 1

# code: HTTP status. Codes are for programs and do not change with the wording of a message.
STATUS = {
    "bad_parameter": 400,
    "bad_request": 400,
    "cross_site": 403,
    "not_found": 404,
    "unknown_model": 404,
    "wrong_method": 405,
    "too_slow": 408,
    "too_large": 413,
    "not_a_photo": 415,
    "wrong_host": 421,
    "internal": 500,
    "busy": 503,
}
RETRY_SECONDS = 1
PRIVATE = {"Cache-Control": "no-store"}


class Refused(CapPruneError):
    """A rejected request; it has the same facts as every error of capprune.

    Args:
        code: A key of `STATUS`.
        what: What happened, one clause without a full stop.
    """

    def __init__(self, code: str, what: str, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.code = code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]


def as_refused(error: CapPruneError) -> Refused:
    """Convert an error of capprune to a rejection."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, PhotoError):
        code = "not_a_photo"
    elif isinstance(error, UsageError):
        code = "bad_parameter"
    else:
        code = "busy" if isinstance(error, NotEnoughMemory) else "internal"
    return Refused(code, error.what, where=error.where, expected=error.expected, found=error.found, hint=error.hint)


def document(refused: Refused) -> dict[str, Any]:
    """Return the JSON document of a rejection."""
    facts = refused.as_json()
    del facts["exit_code"]
    return {"schema_version": SCHEMA_VERSION, **facts, "error": refused.code, "status": refused.status}


def answer(refused: Refused, *, close: bool = False) -> JSONResponse:
    """Return the response to a rejected request.

    Args:
        refused: The reason.
        close: Whether to close the connection, because the rest of the request is not read.
    """
    headers = dict(PRIVATE)
    if refused.code == "busy":
        headers["Retry-After"] = str(RETRY_SECONDS)
    if close:
        headers["Connection"] = "close"
    return JSONResponse(document(refused), status_code=refused.status, headers=headers)
