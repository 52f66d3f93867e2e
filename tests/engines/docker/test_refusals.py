"""Docker's words, as dockerd 20.10 to 28, its containerd image store and Podman have them, and ours for them."""

from __future__ import annotations

import pytest

from clary.engines.docker.logins import Login
from clary.engines.docker.references import parse
from clary.engines.docker.refusals import Attempt, failure, is_missing, kind_of
from clary.errors import LaunchFailure, Transient

PLACE = parse("reg.local:5000/team/model:1")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "manifest for reg.local:5000/team/model:1 not found: manifest unknown: manifest unknown"),
        ("missing", "failed to resolve reference reg.local:5000/team/model:1: reg.local:5000/team/model:1: not found"),
        ("missing", "name unknown: The repository with name 'x' does not exist in the registry with id '1'"),
        ("missing", "reading manifest 1 in reg.local:5000/team/model: manifest unknown"),
        ("refused", 'Head "http://127.0.0.1/v2/m/manifests/1": no basic auth credentials'),
        ("refused", "unauthorized: authentication required"),
        ("refused", "pull access denied for x, repository does not exist or may require 'docker login': denied: "),
        ("refused", "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized"),
        ("unreachable", 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'),
        ("unreachable", 'Get "https://x/v2/": dial tcp: lookup x on 10.0.0.1:53: no such host'),
        ("unreachable", 'Get "https://x/v2/": dial tcp 10.1.1.1:443: connect: no route to host'),
        ("authority", 'Get "https://x/v2/": x509: certificate signed by unknown authority'),
        ("authority", "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"),
        ("plain", 'Get "https://x/v2/": http: server gave HTTP response to HTTPS client'),
        ("platform", "no matching manifest for linux/amd64 in the manifest list entries"),
        ("platform", "no match for platform in manifest: not found"),
        ("platform", "choosing image instance: no image found in image index for architecture amd64"),
        ("disk", "failed to register layer: write /usr/lib/x: no space left on device"),
        ("down", "received unexpected HTTP status: 503 Service Unavailable"),
        ("down", "unexpected status from HEAD request to http://x:5000/v2/m/manifests/1: 500 Internal Server Error"),
        ("down", "toomanyrequests: You have reached your pull rate limit."),
        ("down", 'Get "http://x/v2/": net/http: request canceled (Client.Timeout exceeded while awaiting headers)'),
        ("down", 'Get "https://x/v2/": dial tcp 10.1.1.1:443: i/o timeout'),
        ("down", 'Get "https://x/v2/": net/http: TLS handshake timeout'),
        ("down", "unexpected EOF"),
        ("down", 'Get "https://x/v2/": read tcp 10.0.0.2:3->10.0.0.1:443: read: connection reset by peer'),
        ("name", "invalid reference format: repository name must be lowercase"),
        ("other", "the moon is full"),
    ],
)
def test_the_kind_of_a_failure(kind: str, message: str) -> None:
    assert kind_of(message) == kind
    raised = failure(Attempt(PLACE), message)
    assert isinstance(raised, Transient if kind == "down" else LaunchFailure)
    assert "reg.local:5000" in str(raised)


def test_a_registrys_own_no_is_told_from_other_404s() -> None:
    assert is_missing("manifest unknown: manifest unknown")
    assert is_missing("name unknown: The repository with name 'x' does not exist in the registry with id '1'")
    assert not is_missing("Not Found")
    assert not is_missing("page not found")


def test_each_kind_has_a_sentence_of_its_own() -> None:
    said = {
        str(failure(Attempt(PLACE), message)).replace(message, "")
        for message in (
            "not found",
            "denied",
            "dial tcp",
            "x509: ",
            "server gave HTTP response to HTTPS client",
            "no space left on device",
            "no matching manifest for x",
            "invalid reference format",
            "whatever",
        )
    }
    assert len(said) == 9


def test_who_gave_a_refused_login_is_named() -> None:
    with_login = failure(
        Attempt(PLACE, Login("the function f", "ada", "hush")), "unauthorized: authentication required"
    )
    assert "refused the login for reg.local:5000/team/model:1 that the function f gave" in str(with_login)
    assert "hush" not in str(with_login)
    noted = failure(Attempt(PLACE, note="the credential helper x failed"), "unauthorized: authentication required")
    assert "without a login (the credential helper x failed). Run docker login reg.local:5000 as" in str(noted)


def test_the_signature_of_a_url_is_not_told() -> None:
    raised = failure(Attempt(PLACE), 'Get "https://cdn.local/blob?X-Amz-Signature=abc": x509: bad')
    assert "abc" not in str(raised)
    assert 'Get "https://cdn.local/blob": x509: bad' in str(raised)
