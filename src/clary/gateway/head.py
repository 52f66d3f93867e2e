"""The head of a request, and which heads are refused whatever they ask for."""

from __future__ import annotations


class Head:
    """Method, target and headers of a request. Names are lower-case; repeated ones are joined with a comma."""

    __slots__ = ("complete", "headers", "keep_alive", "method", "modern", "target")

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.modern = True
        """HTTP/1.1: chunked answers and 100-continue are understood."""
        self.keep_alive = True
        self.complete = False
        """The body has ended."""

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target if self.target.find(b"?") < 0 else self.target.partition(b"?")[0]


class BadRequest(Exception):
    """What the client sent breaks a limit of the protocol."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def check(head: Head, version: str) -> None:
    """Refuse what the parser lets pass, and what others on the way may have understood differently.

    Raises BadRequest.
    """
    headers = head.headers
    if not head.modern and version != "1.0":
        raise BadRequest("This version of HTTP is not supported.")
    if head.modern and b"host" not in headers:
        raise BadRequest("The Host header is missing.")
    if headers.get(b"host", b"").find(b",") >= 0:
        raise BadRequest("There is more than one Host header.")
    if b"transfer-encoding" in headers and not (head.modern and headers[b"transfer-encoding"].lower() == b"chunked"):
        raise BadRequest("This Transfer-Encoding is not supported.")
    if head.method == b"CONNECT":
        raise BadRequest("CONNECT is not supported.")


def too_large() -> BadRequest:
    """Say that there is more of a head than is read."""
    return BadRequest("Request header is too large.", 431)


def size_of(head: Head) -> int:
    """Count the bytes that a head holds."""
    return len(head.target) + sum(len(name) + len(value) for name, value in head.headers.items())


def origin_form(target: bytes) -> bytes:
    """Give `/path?query` of `http://host/path?query`, which clients send that take us for their proxy."""
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        return target
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"
