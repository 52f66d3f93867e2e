"""What goes wrong with objects, in our words instead of obstore's: what is no for good, and what may come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from clary.errors import Fatal, Transient

# How S3 answers for a bucket of another region: a redirect that leads nowhere, or a complaint about the signature.
_ELSEWHERE = ("redirect without LOCATION", "AuthorizationHeaderMalformed", "IllegalLocationConstraint")

# Headers of an object that nobody here can read.
_UNREADABLE = ("header contained non UTF-8 characters", "header containing non-ASCII data")

_FORBIDDEN, _NO_BUCKET = "status code: 403", "<Code>NoSuchBucket</Code>"

# What S3 says no to will be no the next time too, but for what happened to the request on its way.
_NO = re.compile(
    r"status code: 4(?:00|05|1[134]).*?<Code>(?!RequestTimeout|IncompleteBody|BadDigest|XAmzContent)([^<]+)</Code>"
    r"(?:.*?<Message>([^<]*)</Message>)?",
    re.DOTALL,
)
_MESSAGE = re.compile("<Message>([^<]*)</Message>")


class ObjectNotFound(Fatal):
    """There is no object at the URL."""


class ObjectRefused(Fatal):
    """The URL is not one that Clary reads, or what is there is not what was asked for."""


class AccessRefused(ObjectRefused):
    """The store has a word of its own against us: no permission, or another region."""


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn obstore's exceptions into ours."""
    try:
        yield
    except FileNotFoundError as error:
        what = "bucket" if _NO_BUCKET in str(error) else "object"
        raise ObjectNotFound(f"{url}: there is no such {what}") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise _access_refused(url, error) from error
    except PreconditionError as error:
        raise ObjectRefused(f"{url}: it is another version than before") from error
    except ValueError as error:  # obstore's word on a key that it has no path for
        raise ObjectRefused(f"{url}: {_first_line(error)}") from error
    except InvalidPathError as error:  # of a listing, which ends there
        raise ObjectRefused(f"{url}: a key there cannot be read: {_first_line(error)}") from error
    except BaseError as error:
        if any(sign in str(error) for sign in _ELSEWHERE):
            raise AccessRefused(f"{url}: its bucket is in another region") from error
        if any(sign in str(error) for sign in _UNREADABLE):
            raise ObjectRefused(f"{url}: {_first_line(error)}") from error
        if _NO_BUCKET in str(error):  # of a listing obstore has no error of its own for it, nor for the next
            raise ObjectNotFound(f"{url}: there is no such bucket") from error
        if _FORBIDDEN in str(error):
            raise _access_refused(url, error) from error
        if no := _NO.search(str(error)):
            said = unescape(": ".join(filter(None, no.groups())))
            raise ObjectRefused(f"{url}: the store refuses it: {said}") from error
        raise Transient(f"{url}: {_first_line(error)}", retry_after=5.0) from error


def _access_refused(url: str, error: BaseException) -> AccessRefused:
    """Make the error for a 403, with what the store says: who may not do what."""
    said = _MESSAGE.search(str(error))
    why = "" if said is None or said[1] in ("", "Access Denied") else f": {unescape(said[1])}"
    return AccessRefused(f"{url}: the store refuses access to it{why}")


def _first_line(error: BaseException) -> str:
    """Give the message without the dump of the cause that obstore appends."""
    return str(error).strip().partition("\n")[0][:300]
