"""Every error that a client can see: one small tree of classes with an HTTP status and a code each.

The JSON body is always `{"error": {"message", "type", "param", "code"}}`. The message says what is
wrong, where, and how to fix it. `code` comes from a small fixed set and is also a metric's label.

    ServiceError
    +-- InvalidRequestError       400  a field is wrong
    |   +-- MethodNotAllowedError 405  the path has no such method
    |   +-- BodyTimeoutError      408  the body does not arrive
    |   +-- PayloadTooLargeError  413  the body is too large
    |   +-- UnsupportedMediaTypeError 415  the body is not sent as JSON
    +-- NotFoundError             404  no such adapter
    +-- OverloadedError           429  a bounded queue is full: try again shortly
    +-- UnavailableError          503  the server is starting or draining
    |   +-- RequestTimeoutError   503  the request's time is up
    |   +-- StoreUnavailableError 503  this needs Redis, and Redis does not answer
    |   +-- EngineDeadError       503  the engine has died
    +-- AdapterRejectedError      500  generated weights do not fit the base model
    +-- GenerationFailedError     500  the hypernetwork failed
"""

from __future__ import annotations


class ServiceError(Exception):
    """Base of all errors that a client can see. The base itself is a 500, an internal error."""

    status = 500
    type = "server_error"
    code = "internal_error"
    retry_after_s: int | None = None
    """Seconds after which the same request may succeed: the `Retry-After` header."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code

    def body(self) -> dict[str, dict[str, str | None]]:
        """The response's JSON body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequestError(ServiceError):
    """400: the field named in `param` is wrong."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class MethodNotAllowedError(InvalidRequestError):
    """405: the path exists, but not with this method."""

    status = 405
    code = "method_not_allowed"


class BodyTimeoutError(InvalidRequestError):
    """408: the body did not arrive in time."""

    status = 408
    code = "body_too_slow"


class PayloadTooLargeError(InvalidRequestError):
    """413: the body exceeds the server's limit."""

    status = 413
    code = "payload_too_large"


class UnsupportedMediaTypeError(InvalidRequestError):
    """415: the body was not sent as JSON."""

    status = 415
    code = "unsupported_media_type"


class NotFoundError(ServiceError):
    """404: there is no such route or adapter."""

    status = 404
    type = "not_found_error"
    code = "not_found"


class OverloadedError(ServiceError):
    """429: a bounded queue is full. The same request may succeed a moment later."""

    status = 429
    type = "overloaded_error"
    code = "queue_full"
    retry_after_s = 1


class UnavailableError(ServiceError):
    """503: the server cannot answer now, because it is starting or draining."""

    status = 503
    type = "unavailable_error"
    code = "unavailable"
    retry_after_s = 5


class RequestTimeoutError(UnavailableError):
    """503: the request exceeded the time limit of one request."""

    code = "timeout"


class StoreUnavailableError(UnavailableError):
    """503: the request needs Redis (a deletion does), and Redis does not answer."""

    code = "store_unavailable"


class EngineDeadError(UnavailableError):
    """503: the inference engine has died. Only a restart of the server helps."""

    code = "engine_dead"


class AdapterRejectedError(ServiceError):
    """500: an adapter failed validation before it reached the engine."""

    code = "adapter_rejected"


class GenerationFailedError(ServiceError):
    """500: the hypernetwork or its encoder failed on a batch."""

    code = "adapter_generation_failed"
