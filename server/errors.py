"""Every error a client can see: one small tree, each class knowing its HTTP status and code.

The wire shape is always `{"error": {"message", "type", "param", "code"}}`; the
message says what is wrong, where, and how to mend it. `code` comes from a small
fixed set, so that it can also be the label of a metric.

    ServiceError
    +-- InvalidRequestError       400  a field is wrong
    |   +-- MethodNotAllowedError 405  the route does something else
    |   +-- BodyTimeoutError         408  the body does not arrive
    |   +-- PayloadTooLargeError  413  the body is too big
    +-- NotFoundError             404  no such adapter
    +-- OverloadedError           429  a bounded queue is full; try again shortly
    +-- UnavailableError          503  starting or draining
    |   +-- RequestTimeoutError         503  the request's time is up
    |   +-- StoreUnavailableError 503  Redis must answer for this, and does not
    |   +-- EngineDeadError       503  the engine has died
    +-- AdapterRejectedError      500  generated weights do not fit the base model
    +-- GenerationFailedError     500  the hypernetwork failed
"""

from __future__ import annotations


class ServiceError(Exception):
    """Base of all errors with a wire form; by itself, 500: a fault of the server's own."""

    status = 500
    type = "server_error"
    code = "internal_error"
    retry_after_s: int | None = None
    """Becomes the `Retry-After` header: seconds after which the same request may succeed."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body that a client gets."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequestError(ServiceError):
    """400: the client can mend it by changing the field named in `param`."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class MethodNotAllowedError(InvalidRequestError):
    """405: the route exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class BodyTimeoutError(InvalidRequestError):
    """408: the client has not sent its body in time."""

    status = 408
    code = "body_too_slow"


class PayloadTooLargeError(InvalidRequestError):
    """413: the body is larger than the server reads."""

    status = 413
    code = "payload_too_large"


class NotFoundError(ServiceError):
    """404: nothing has that id."""

    status = 404
    type = "not_found_error"
    code = "not_found"


class OverloadedError(ServiceError):
    """429: a bounded queue is full; try again after a moment."""

    status = 429
    type = "overloaded_error"
    code = "queue_full"
    retry_after_s = 1


class UnavailableError(ServiceError):
    """503: the server cannot answer now (starting, draining)."""

    status = 503
    type = "unavailable_error"
    code = "unavailable"
    retry_after_s = 5


class RequestTimeoutError(UnavailableError):
    """503: the request was not done within the server's time limit for one request."""

    code = "timeout"


class StoreUnavailableError(UnavailableError):
    """503: the answer would be a lie without Redis, and Redis does not answer (deleting, for instance)."""

    code = "store_unavailable"


class EngineDeadError(UnavailableError):
    """503: the inference engine has died; the server must be restarted."""

    code = "engine_dead"


class AdapterRejectedError(ServiceError):
    """500: an adapter failed validation before it reached the engine."""

    code = "adapter_rejected"


class GenerationFailedError(ServiceError):
    """500: the hypernetwork or its encoder failed on a batch."""

    code = "adapter_generation_failed"
