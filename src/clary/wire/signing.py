"""Signing as a client: for the S3 that a user brings, in whose name requests go on under the user's own keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from time import gmtime, strftime

from clary.wire.canonical import Request, canonical_request
from clary.wire.signer import ALGORITHM, SigningKey


class Signer:
    """Sign requests to one service in one region. `now` gives seconds since 1970."""

    def __init__(self, access_key_id: str, secret: str, region: str, service: str, now: Callable[[], float]) -> None:
        self._access_key_id = access_key_id
        self._secret = secret
        self._region = region
        self._service = service
        self._now = now
        self._date = ""
        self._key: SigningKey

    def sign(
        self, method: str, resource: tuple[bytes, bytes], headers: Mapping[bytes, bytes], payload_hash: str
    ) -> dict[bytes, bytes]:
        """Give the headers to send: these, signed, and the three that carry the signature.

        `resource` are path and query in canonical form (`canonical.strict_resource`), and to be sent so. `headers` have
        lower-case names and include `host`.
        """
        stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(self._now()))
        if self._date != stamp[:8]:
            self._date = stamp[:8]
            self._key = SigningKey(self._secret, self._date, self._region, self._service)
        sent = {**headers, b"x-amz-date": stamp.encode(), b"x-amz-content-sha256": payload_hash.encode()}
        names = sorted(sent)
        signed_headers = b";".join(names)
        canonical = canonical_request(Request(method, *resource, sent), resource, names, signed_headers, payload_hash)
        scope = f"{self._date}/{self._region}/{self._service}/aws4_request"
        digest = sha256(canonical).hexdigest()
        signature = self._key.sign(f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}".encode())
        credential = f"{self._access_key_id}/{scope}"
        authorization = (
            f"{ALGORITHM} Credential={credential}, SignedHeaders={signed_headers.decode()}, Signature={signature}"
        )
        return {**sent, b"authorization": authorization.encode()}
