"""What a request gets in place of an answer: a status and an error as OpenAI's clients read it."""

from typing import Any

_TYPES = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}


class Refused(Exception):
    """One request that is not answered."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None, after: int = 0) -> None:
        """param: the field of the request; after: seconds, another try may help then."""
        super().__init__(message)
        self.status, self.param, self.code, self.after = status, param, code, after

    @property
    def headers(self) -> dict[str, str]:
        """Says when to try again; one that took too long would take as long again."""
        if self.status == 408:
            return {"x-should-retry": "false"}
        return {"Retry-After": str(self.after)} if self.after else {}

    @property
    def body(self) -> dict[str, Any]:
        """Writes it in OpenAI's shape."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}
