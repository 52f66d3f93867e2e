"""AWS Signature Version 4, from the server's side: who signed this request, and is it still what was signed?

The rules are AWS's ("Signature Version 4 signing process", and "Authenticating Requests" in the S3 API reference);
the reference for every byte is botocore's signers, against which the tests run. It is on the path of each invocation,
so a header-signed request costs two short SHA-256 runs, one over the payload, and little else:

- All of an `Authorization` header but its signature is the same for every request that a client sends in a day. It is
  parsed, and its signing key derived, once. Only a request whose signature was right may enter that cache.
- ISO 8601 basic timestamps sort as text, so the clock check compares with two strings that are made once a second.

An access key that is not among the known ones may be a temporary one: its `X-Amz-Security-Token` then tells all of it.
Beside a known key a signed token is tolerated and means nothing: one left over in an environment says nothing that the
secret does not. An unsigned one is refused, like every unsigned `x-amz-*` header.
"""

from __future__ import annotations

import hmac
from calendar import timegm
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from hashlib import sha256
from time import gmtime, strftime, strptime
from typing import NamedTuple
from urllib.parse import unquote

from clary.errors import AwsError
from clary.wire import refusals, sigv2
from clary.wire.canonical import Request, canonical_request, double_encoded, sent_resource, strict_resource
from clary.wire.signer import ALGORITHM, TERMINATOR, KnownSigner, SigningKey

EMPTY_SHA256 = sha256().hexdigest()
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
STREAMED_PAYLOADS = (
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
)

_STAMP = "%Y%m%dT%H%M%SZ"
_WEEK = 604800
_MOST_DIGITS = 9
_CACHE_SIZE = 4096
_MOST_NAMES = 128
"""Names of headers that are remembered of a signer."""
_TOKEN = b"x-amz-security-token"
_MUST_BE_SIGNED = (b"x-amz-", b"x-amzn-sagemaker-")
"""Beginnings of headers that steer a request, so that whoever adds one changes what was asked for."""
_PRESIGNED = b"X-Amz-Signature="
_PRESIGNED_PARTS = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")


class Identity(NamedTuple):
    """Who signed a request, and what a body that is streamed after the headers is held against."""

    access_key_id: str
    service: str
    region: str
    timestamp: str  # 20260131T235959Z
    scope: str  # 20260131/us-east-1/s3/aws4_request
    payload_hash: str  # SHA-256 in hexadecimal, UNSIGNED_PAYLOAD or one of STREAMED_PAYLOADS
    signature: str
    signing_key: SigningKey
    token: str = ""
    """The session token of temporary credentials; empty for a key that stays."""


class Session(NamedTuple):
    """What a session token says of its access key. `expires_at` in seconds since 1970."""

    secret: str
    expires_at: float


SessionLookup = Callable[[str, str], Session | None]
"""Gives what a token, the second argument, says of an access key id; None where it was not made here, or not for it."""


class Verifier:
    """Verify requests against known secrets, for one region.

    `secrets` maps access key id to secret; keys may come and go under way, a key's secret may not change. `now` gives
    seconds since 1970. `max_skew` is how many seconds a request's date may be off, either way. `sessions` tells of
    access keys that are not in `secrets`, by their tokens.
    """

    def __init__(
        self,
        secrets: Mapping[str, str],
        region: str,
        now: Callable[[], float],
        max_skew: int = 300,
        sessions: SessionLookup | None = None,
    ) -> None:
        self._secrets = secrets
        self._sessions = sessions
        self._region = region
        self._now = now
        self._skew = max_skew
        self._signers: dict[bytes, KnownSigner] = {}
        self._second = -1
        self._earliest = self._latest = ""

    def verify(self, method: str, target: bytes, headers: Mapping[bytes, bytes], payload: bytes | None) -> Identity:
        """Tell who signed a request, by its `Authorization` header or its query.

        `target` is the raw request target. Header names are lower-case; the values of a name that came more than once
        are joined by `,`. `payload` is the whole body. It may be None for S3 alone, where the request declares the
        hash: the caller then holds the body against `Identity.payload_hash` (see `awschunked.Payload`).
        Raises AwsError with AWS's own codes, S3's where the credential's scope is S3's.
        """
        authorization = headers.get(b"authorization")
        if authorization is not None and payload is not None:
            identity = self._verify_known(method, target, headers, payload, authorization)
            if identity is not None:
                return identity
        return self._verify_fully(method, target, headers, payload)

    def known(self, prefix: bytes) -> KnownSigner | None:
        """Give whose an `Authorization` header is that begins so, all but the signature, if its key is still one.

        None says nothing. Whoever checks a signature with it has to check the session's token too.
        """
        signer = self._signers.get(prefix)
        if signer is None or signer.service == "s3":
            return None
        if signer.access_key_id in self._secrets or (signer.token and self._now() < signer.expires_at):
            return signer
        return None

    def identity(self, signer: KnownSigner, stamp: str, signature: bytes, payload_hash: str) -> Identity:
        """Give what a verified request says of its sender."""
        return _identity(signer, stamp, signature, payload_hash)

    def _verify_known(
        self, method: str, target: bytes, headers: Mapping[bytes, bytes], payload: bytes, authorization: bytes
    ) -> Identity | None:
        """Verify a request of a signer who was seen before, in its most usual form; None says nothing.

        It may only accept: what is refused, and why, is decided by `_verify_fully`. Header values are taken as they
        came. Where canonical form would have changed one (repeated spaces) the signature does not match here.
        """
        signer = self._signers.get(authorization[:-64])
        if (
            signer is None
            or signer.service == "s3"
            or target.find(b"?") >= 0
            or not headers.keys() <= signer.covered
            or not (signer.access_key_id in self._secrets or self._goes_on(signer, headers))
        ):
            return None
        try:
            values = signer.values(headers)[1:]
            stamp = headers[b"x-amz-date"].decode("latin-1")
        except KeyError:
            return None
        if not self.is_current(signer, stamp):
            return None
        payload_hash = sha256(payload).hexdigest()
        declared = headers.get(b"x-amz-content-sha256")
        if declared is not None and declared != payload_hash.encode():
            return None
        canonical = signer.form % (method.encode(), double_encoded(target), *values, payload_hash.encode())
        signature = authorization[-64:]
        if not hmac.compare_digest(signer.signature(stamp, canonical), signature):
            return None
        return _identity(signer, stamp, signature, payload_hash)

    def _verify_fully(
        self, method: str, target: bytes, headers: Mapping[bytes, bytes], payload: bytes | None
    ) -> Identity:
        path, _, query = target.partition(b"?")
        request = Request(method, path, query, headers)
        authorization = _authorization(request)
        if authorization is None:
            if _PRESIGNED in query:
                return self._verify_presigned(request, payload)
            if payload is None and sigv2.MARK in query:
                return self._verify_version_2(request)
            raise refusals.MISSING.error(headers, "Missing Authentication Token", s3=False)
        prefix = authorization[:-64]
        signer, signature, stamp = self._claim(request, authorization)
        s3 = signer.service == "s3"
        payload_hash = _declared_hash(headers, payload) if s3 else _computed_hash(headers, payload)
        self._check_signature(request, signer, stamp, signature, payload_hash)
        if s3 and payload is not None and len(payload_hash) == 64 and sha256(payload).hexdigest() != payload_hash:
            raise payload_mismatch()
        if prefix.endswith(b"Signature="):
            self._remember(prefix, signer, headers)
        return _identity(signer, stamp, signature, payload_hash)

    def foresee(self, method: str, target: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Raise the AwsError of `verify` that no body can avert: a form, a key, a date that is not accepted."""
        path, _, query = target.partition(b"?")
        request = Request(method, path, query, headers)
        authorization = _authorization(request)
        if authorization is not None:
            self._claim(request, authorization)
        elif _PRESIGNED in query:
            self._claim_presigned(request)
        else:
            raise refusals.MISSING.error(headers, "Missing Authentication Token", s3=False)

    def _claim(self, request: Request, authorization: bytes) -> tuple[KnownSigner, bytes, str]:
        """Give who claims to have signed a request, the signature and its time. Only the signature is left to check."""
        headers = request.headers
        signer = self._signers.get(authorization[:-64])
        if signer is not None and (signer.access_key_id in self._secrets or self._goes_on(signer, headers)):
            signature = authorization[-64:]
        else:
            signer, signature = self._parse(request, authorization)
        stamp = (headers.get(b"x-amz-date") or _date_header(headers)).decode("latin-1")
        self._check_clock(headers, signer, stamp)
        return signer, signature, stamp

    def _goes_on(self, signer: KnownSigner, headers: Mapping[bytes, bytes]) -> bool:
        """Tell whether a session that was seen before comes with the same token and is not over."""
        return signer.token != b"" and headers.get(_TOKEN) == signer.token and self._now() < signer.expires_at

    def _remember(self, prefix: bytes, signer: KnownSigner, headers: Mapping[bytes, bytes]) -> None:
        if prefix not in self._signers:
            if len(self._signers) >= _CACHE_SIZE:
                self._signers.clear()
            self._signers[prefix] = signer
        if len(signer.covered) + len(headers) <= _MOST_NAMES:
            signer.covered.update(headers)

    def _parse(self, request: Request, authorization: bytes) -> tuple[KnownSigner, bytes]:
        headers = request.headers
        s3 = b"/s3/" in authorization
        algorithm, _, rest = authorization.decode("latin-1").partition(" ")
        if algorithm != ALGORITHM:
            raise refusals.MALFORMED.error(headers, f"Unsupported AWS 'algorithm': {algorithm[:32]!r}.", s3=s3)
        parts = {}
        for part in rest.split(","):
            name, _, value = part.strip().partition("=")
            parts[name] = value
        absent = [name for name in ("Credential", "Signature", "SignedHeaders") if not parts.get(name)]
        if absent:
            message = " ".join(f"Authorization header requires '{name}' parameter." for name in absent)
            raise refusals.MALFORMED.error(headers, message, s3=s3)
        signer = self._signer(headers, parts["Credential"], parts["SignedHeaders"], headers.get(_TOKEN, b""))
        return signer, parts["Signature"].encode("latin-1")

    def _secret_of(self, headers: Mapping[bytes, bytes], access_key_id: str, token: bytes, *, s3: bool) -> Session:
        secret = self._secrets.get(access_key_id)
        if secret is not None:
            return Session(secret, 0.0)
        invalid = "The security token included in the request is invalid."
        if not token or self._sessions is None:
            raise refusals.UNKNOWN_KEY.error(headers, invalid, s3=s3)
        session = self._sessions(access_key_id, token.decode("latin-1"))
        if session is None:
            raise refusals.BAD_TOKEN.error(headers, invalid, s3=s3)
        if session.expires_at <= self._now():
            raise refusals.EXPIRED_TOKEN.error(headers, "The security token included in the request is expired", s3=s3)
        return session

    def _signer(
        self, headers: Mapping[bytes, bytes], credential: str, signed_headers: str, token: bytes
    ) -> KnownSigner:
        fields = credential.rsplit("/", 4)
        if len(fields) != 5:
            message = (
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
                f"got '{credential[:128]}'"
            )
            raise refusals.MALFORMED.error(headers, message, s3="/s3/" in credential)
        access_key_id, date, region, service, terminator = fields
        s3 = service == "s3"
        secret, expires_at = self._secret_of(headers, access_key_id, token, s3=s3)
        if region != self._region:
            message = (
                f"The authorization header is malformed; the region '{region}' is wrong; expecting '{self._region}'"
                if s3
                else f"Credential should be scoped to a valid region, not '{region}'."
            )
            raise refusals.SCOPE.error(headers, message, s3=s3)
        if terminator != TERMINATOR:
            message = f"Credential should be scoped with a valid terminator: 'aws4_request', not '{terminator}'."
            raise refusals.SCOPE.error(headers, message, s3=s3)
        names = tuple(signed_headers.encode("latin-1").split(b";"))
        if b"host" not in names:
            message = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
            raise refusals.UNSIGNED_HEADER.error(headers, message, s3=s3)
        return KnownSigner(
            access_key_id,
            service,
            region,
            f"{date}/{region}/{service}/{terminator}",
            date,
            names,
            signed_headers.encode("latin-1"),
            SigningKey(secret, date, region, service),
            token if expires_at else b"",
            expires_at,
        )

    def is_current(self, signer: KnownSigner, stamp: str) -> bool:
        """Tell whether a request's time is within the clock's bounds and on the day of its credential."""
        second = int(self._now())
        if second != self._second:
            self._earliest = strftime(_STAMP, gmtime(second - self._skew))
            self._latest = strftime(_STAMP, gmtime(second + self._skew))
            self._second = second
        return self._earliest <= stamp <= self._latest and stamp[:8] == signer.date and len(stamp) == 16

    def _check_clock(self, headers: Mapping[bytes, bytes], signer: KnownSigner, stamp: str) -> None:
        if self.is_current(signer, stamp):
            return
        second = self._second
        s3 = signer.service == "s3"
        _seconds(headers, stamp, s3=s3)
        minutes = f"{strftime(_STAMP, gmtime(second))} {{}} {self._skew // 60} min."
        if stamp < self._earliest:
            message = f"Signature expired: {stamp} is now earlier than {self._earliest} ({minutes.format('-')})"
            raise refusals.SKEWED.error(headers, message, s3=s3)
        if stamp > self._latest:
            message = f"Signature not yet current: {stamp} is still later than {self._latest} ({minutes.format('+')})"
            raise refusals.SKEWED.error(headers, message, s3=s3)
        raise _wrong_scope_date(headers, signer, stamp)

    def _check_signature(
        self, request: Request, signer: KnownSigner, stamp: str, signature: bytes, payload_hash: str
    ) -> None:
        for name in request.headers:
            if name.startswith(_MUST_BE_SIGNED) and name not in signer.signed:
                message = "There were headers present in the request which were not signed"
                raise refusals.UNSIGNED_HEADER.error(request.headers, message, s3=signer.service == "s3")
        s3 = signer.service == "s3"
        for resource_of in (sent_resource, strict_resource):
            resource = resource_of(request.path, request.query, s3=s3)
            canonical = canonical_request(request, resource, signer.signed, signer.signed_headers, payload_hash)
            if hmac.compare_digest(signer.signature(stamp, canonical), signature):
                return
        raise refusals.MISMATCH.error(request.headers, refusals.MISMATCH_MESSAGE, s3=s3)

    def _claim_presigned(self, request: Request) -> tuple[KnownSigner, bytes, str]:
        """Do for a presigned request what `_claim` does for the others."""
        headers = request.headers
        pairs = (pair.partition(b"=")[::2] for pair in request.query.split(b"&"))
        given = {name.decode("latin-1"): unquote(value.decode("latin-1")) for name, value in pairs}
        s3 = "/s3/" in given.get("X-Amz-Credential", "")
        absent = [part for part in _PRESIGNED_PARTS if not given.get(f"X-Amz-{part}")]
        if absent or given["X-Amz-Algorithm"] != ALGORITHM:
            message = (
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
                "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
            raise refusals.BAD_QUERY.error(headers, message, s3=s3)
        token = given.get("X-Amz-Security-Token", "").encode("latin-1", "replace")
        signer = self._signer(headers, given["X-Amz-Credential"], given["X-Amz-SignedHeaders"], token)
        stamp = given["X-Amz-Date"]
        self._check_expiry(headers, signer, stamp, given["X-Amz-Expires"])
        return signer, given["X-Amz-Signature"].encode("latin-1", "replace"), stamp

    def _verify_presigned(self, request: Request, payload: bytes | None) -> Identity:
        headers = request.headers
        signer, signature, stamp = self._claim_presigned(request)
        s3 = signer.service == "s3"
        unsigned = headers.get(b"x-amz-content-sha256", UNSIGNED_PAYLOAD.encode()) == UNSIGNED_PAYLOAD.encode()
        if unsigned and (s3 or b"x-amz-content-sha256" in headers):
            payload_hash = UNSIGNED_PAYLOAD
        else:
            payload_hash = _declared_hash(headers, payload) if s3 else _computed_hash(headers, payload)
        query = b"&".join(pair for pair in request.query.split(b"&") if not pair.startswith(_PRESIGNED))
        self._check_signature(request._replace(query=query), signer, stamp, signature, payload_hash)
        if s3 and payload is not None and len(payload_hash) == 64 and sha256(payload).hexdigest() != payload_hash:
            raise payload_mismatch()
        return _identity(signer, stamp, signature, payload_hash)

    def _verify_version_2(self, request: Request) -> Identity:
        key_id = sigv2.verify_presigned(request, self._secrets, self._now())
        # It covers no payload, so there is nothing for a key to sign later on.
        return Identity(key_id, "s3", self._region, "", "", UNSIGNED_PAYLOAD, "", SigningKey("", "", "", ""))

    def _check_expiry(self, headers: Mapping[bytes, bytes], signer: KnownSigner, stamp: str, expires: str) -> None:
        s3 = signer.service == "s3"
        if not 0 < (lasts := seconds(expires)) <= _WEEK:
            message = "X-Amz-Expires must be between 1 and 604800 seconds"
            raise refusals.BAD_QUERY.error(headers, message, s3=s3)
        if stamp[:8] != signer.date:
            raise _wrong_scope_date(headers, signer, stamp)
        signed_at, now = _seconds(headers, stamp, s3=s3), self._now()
        if now > signed_at + lasts:
            limit = strftime(_STAMP, gmtime(now - lasts))
            raise refusals.EXPIRED.error(headers, f"Signature expired: {stamp} is now earlier than {limit}", s3=s3)
        if signed_at > now + self._skew:
            limit = strftime(_STAMP, gmtime(now + self._skew))
            message = f"Signature not yet current: {stamp} is still later than {limit}"
            raise refusals.SKEWED.error(headers, message, s3=s3)


def _identity(signer: KnownSigner, stamp: str, signature: bytes, payload_hash: str) -> Identity:
    token = signer.token.decode("latin-1") if signer.token else ""
    signed = (stamp, signer.scope, payload_hash, signature.decode(), signer.key, token)
    return Identity(signer.access_key_id, signer.service, signer.region, *signed)


def seconds(text: str) -> int:
    """Read a number of seconds, as presigned URLs have them; -1 for what is none, or beyond all sense."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else -1


def _authorization(request: Request) -> bytes | None:
    """Give the Authorization header. Raises AwsError where the query is signed as well."""
    authorization = request.headers.get(b"authorization")
    if authorization is not None and request.query and _PRESIGNED in request.query:
        raise refusals.TWO_WAYS.error(request.headers, "Only one auth mechanism allowed", s3=b"/s3/" in authorization)
    return authorization


def payload_mismatch() -> AwsError:
    """Make S3's answer to a body that is not the one whose hash was signed."""
    message = "The provided 'x-amz-content-sha256' header does not match what was computed."
    return AwsError(message, code="XAmzContentSHA256Mismatch", status=400)


def _declared_hash(headers: Mapping[bytes, bytes], payload: bytes | None) -> str:
    """Give what an S3 request says of its payload; the body may come after."""
    declared = headers.get(b"x-amz-content-sha256", b"").decode("latin-1")
    if not declared:
        message = "Missing required header for this request: x-amz-content-sha256"
        raise AwsError(message, code="InvalidRequest", status=400)
    if len(declared) != 64 and declared != UNSIGNED_PAYLOAD and declared not in STREAMED_PAYLOADS:
        message = (
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
        )
        raise AwsError(message, code="InvalidArgument", status=400)
    return declared


def _computed_hash(headers: Mapping[bytes, bytes], payload: bytes | None) -> str:
    """Give the payload's own hash: services other than S3 take no payload that the signature does not cover.

    Their clients hash each body, so an UNSIGNED-PAYLOAD here would only serve one who wants to exchange it.
    """
    if payload is None:
        message = "Credential should be scoped to correct service: 's3'."
        raise refusals.SCOPE.error(headers, message, s3=False)
    computed = sha256(payload).hexdigest() if payload else EMPTY_SHA256
    declared = headers.get(b"x-amz-content-sha256")
    if declared is not None and declared != computed.encode():
        raise refusals.MISMATCH.error(headers, refusals.MISMATCH_MESSAGE, s3=False)
    return computed


def _date_header(headers: Mapping[bytes, bytes]) -> bytes:
    """Turn `Date`, which may stand in for `X-Amz-Date`, into the form that is signed."""
    try:
        date = parsedate_to_datetime(headers[b"date"].decode("latin-1")).utctimetuple()
    except (KeyError, ValueError, OverflowError):
        message = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        raise refusals.MALFORMED.error(headers, message, s3=b"/s3/" in headers.get(b"authorization", b"")) from None
    return strftime(_STAMP, date).encode()


def _seconds(headers: Mapping[bytes, bytes], stamp: str, *, s3: bool) -> int:
    try:
        return timegm(strptime(stamp, _STAMP))
    except ValueError:
        message = f"Date must be in ISO-8601 'basic format'. Got '{stamp[:32]}'."
        raise refusals.MALFORMED.error(headers, message, s3=s3) from None


def _wrong_scope_date(headers: Mapping[bytes, bytes], signer: KnownSigner, stamp: str) -> AwsError:
    message = (
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
        f"'{signer.date}' != '{stamp[:8]}', from '{stamp}'."
    )
    return refusals.SCOPE.error(headers, message, s3=signer.service == "s3")
