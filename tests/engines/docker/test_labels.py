"""From Docker's words to ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clary.core.containers import ContainerSpec
from clary.engines.docker.identity import identity
from clary.engines.docker.labels import kept, phase, to_container, to_labels

SPEC = ContainerSpec(
    "c-1", "iris", "A", "i-1", "image:1", {"TOKEN": "secret"}, deployment="d", instance_type="ml.m5.large"
)


def inspected(**state: Any) -> dict[str, Any]:
    return {
        "Id": "0a",
        "Config": {"Labels": to_labels("me", SPEC, "image@sha256:1", ("k1", "k2"))},
        "State": {
            "Status": "running",
            "Running": True,
            "Pid": 7,
            "ExitCode": 0,
            "StartedAt": "2023-11-14T22:13:20.123456789Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            **state,
        },
        "HostConfig": {"NetworkMode": "clary-me"},
        "NetworkSettings": {
            "Ports": {},
            "Networks": {"clary-link": {"IPAddress": "1"}, "clary-me": {"IPAddress": "2"}},
        },
    }


def test_what_was_launched_is_found_again_in_the_labels() -> None:
    found = to_container(inspected(), 8080)
    assert (found.id, found.endpoint, found.variant, found.instance_id) == ("c-1", "iris", "A", "i-1")
    assert (found.deployment, found.image, found.resolved_image) == ("d", "image:1", "image@sha256:1")
    assert (found.phase, found.host, found.port, found.pid) == ("running", "2", 8080, 7)
    assert found.started_at == 1_700_000_000.123456
    names = kept(inspected())
    assert (names.log_group, names.log_stream) == ("/aws/sagemaker/Endpoints/iris", "A/i-1")
    assert names.artifacts == ("k1", "k2")
    assert "secret" not in str(to_labels("me", SPEC, "", ()))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"ExitCode": 0}, "exited with 0"),
        ({"ExitCode": 127}, "exited with 127"),
        ({"ExitCode": 128}, "exited with 128"),
        ({"ExitCode": 137}, "killed by SIGKILL"),
        ({"ExitCode": 137, "OOMKilled": True}, "killed for memory (limit 8 GiB)"),
        ({"ExitCode": 143}, "killed by SIGTERM"),
        ({"ExitCode": 255}, "exited with 255"),
    ],
)
def test_an_end_is_told_by_its_code(state: dict[str, Any], reason: str) -> None:
    ended = {"Status": "exited", "Running": False, "Pid": 0, "FinishedAt": "2023-11-14T22:13:21Z", **state}
    found = to_container(inspected(**ended), 8080)
    assert (found.phase, found.pid, found.exit_reason, found.exited_at) == ("exited", None, reason, 1_700_000_001.0)


@pytest.mark.parametrize(
    ("status", "means"),
    [
        ("created", "created"),
        ("running", "started"),
        ("paused", "started"),
        ("exited", "started"),
        ("removing", "leaving"),
    ],
)
def test_a_status_tells_how_far_it_is(status: str, means: str) -> None:
    assert phase(inspected(Status=status)) == means


def test_a_data_folder_is_known_by_its_place_and_what_lies_in_it(tmp_path: Path) -> None:
    one = identity(tmp_path / "a", tmp_path / "a")
    assert identity(tmp_path / "a", tmp_path / "a") == one
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "identity").write_bytes((tmp_path / "a" / "identity").read_bytes())
    assert identity(tmp_path / "b", tmp_path / "b") != one, "a copy is somebody else"
    (tmp_path / "a" / "identity").unlink()
    assert identity(tmp_path / "a", tmp_path / "a") != one, "and so is another folder at the same place"
