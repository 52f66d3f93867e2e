"""Everything that Clary raises on purpose.

    ClaryError
    ├── AwsError              an answer to a caller: code, HTTP status, message
    │   ├── ValidationException       400, the control plane's word for nearly everything
    │   ├── SerializationException    400, the body is not what the protocol says
    │   ├── UnknownOperationException 400, no such operation, or one that Clary does not have
    │   ├── AccessDeniedException     403
    │   └── InternalFailure           500, a defect of ours
    ├── SettingsError         the configuration is wrong; the message says which setting and what would be right
    ├── Transient             try again, after `retry_after` seconds
    │   └── DiskFull                  once there is room
    └── Fatal                 trying again changes nothing
        └── LaunchFailure     a container could not be started; `step` says where

"Try again" is a type; nothing is inferred from texts. Translation to the wire happens in `wire.dispatch` alone.
"""

from __future__ import annotations


class ClaryError(Exception):
    """The root of the tree."""


class AwsError(ClaryError):
    """An error answer under AWS's own code."""

    code = "InternalFailure"
    status = 500

    def __init__(self, message: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class ValidationException(AwsError):
    """A constraint or a rule is broken, or a name is unknown or taken (the hosting API has no 404)."""

    code = "ValidationException"
    status = 400


class SerializationException(AwsError):
    """The body is not JSON, or a member has another JSON type than the model says."""

    code = "SerializationException"
    status = 400


class UnknownOperationException(AwsError):
    """The operation does not exist, or it exists at AWS and Clary does not have it."""

    code = "UnknownOperationException"
    status = 400


class AccessDeniedException(AwsError):
    """The caller is known and may not do this."""

    code = "AccessDeniedException"
    status = 403


class InternalFailure(AwsError):
    """A defect of ours: the log has the traceback under the request id."""


class SettingsError(ClaryError):
    """A setting is unknown or has a value that it cannot have."""


class Transient(ClaryError):
    """It did not work now; it may work after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class DiskFull(Transient):
    """The disk has no room for it."""


class ContainerGone(Transient):
    """The container has ended; another may have the model."""


class Fatal(ClaryError):
    """It did not work and will not work the next time either."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class LaunchFailure(Fatal):
    """A container could not be started. `step` is one of: image, download, size, unpack, environment, create."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step
