"""doctor: findings about the machine, and what is said of an endpoint."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from clary.cli import doctor, machine
from clary.cli.diagnosis import Container, Diagnosis, Variant, advice
from clary.core.failure import Failure, Scene, failure_reason
from clary.core.resources import log_group
from clary.engines.docker.references import parse
from clary.engines.docker.refusals import Attempt, failure
from clary.logs.folder import LogFolder
from clary.settings import GIB
from tests.cli.conftest import ABSENT, FakeClary, refused

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def quick_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has everything; each test takes something away."""
    for name, value in {
        "uv_binary": "/usr/bin/uv",
        "version_of": "tool 1.0",
        "pythons": ["3.12.1", "3.11.7"],
        "free_bytes": 50 * GIB,
        "can_write": True,
        "can_bind": True,
        "docker_version": "29.1 at unix:///var/run/docker.sock",
        "docker_networks": frozenset({"bridge", "blue"}),
        "has_short_way": True,
        "can_connect": True,
        "can_mount": True,
        "isolation_obstacle": None,
        "limit_notes": (),
        "memory_bytes": (16 * GIB, 8 * GIB),
        "cpus": 4,
        "newest_source": 0.0,
    }.items():
        monkeypatch.setattr(machine, name, lambda *_, value=value: value)


def finding(data: Path, topic: str) -> tuple[str, str, str]:
    (found,) = (one for one in doctor.examine(data) if one.topic == topic)
    return found.state, found.found, found.advice


def test_a_machine_that_has_everything_passes(clary: FakeClary, run: Run) -> None:
    result = run("doctor", "--data", clary.data)
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.stdout.splitlines()} == {"ok"}
    assert len(result.stdout.splitlines()) == len(doctor.CHECKS) + 1


@pytest.mark.parametrize(
    ("probe", "value", "topic", "state", "said"),
    [
        ("uv_binary", None, "uv", "fail", "pip install uv"),
        ("pythons", [], "Python", "warn", "uv python install"),
        ("free_bytes", GIB // 2, "Disk", "fail", "--data"),
        ("can_write", False, "Disk", "fail", "--data"),
        ("can_bind", False, "Port", "fail", "--port"),
        ("docker_version", None, "Docker", "warn", "docker engine"),
        ("has_short_way", False, "Gateway", "warn", "C compiler"),
        ("can_mount", False, "Namespaces", "warn", "SM_MODEL_DIR"),
        ("isolation_obstacle", "sysctl x is 0", "Isolation", "warn", "sysctl x is 0"),
        ("limit_notes", ("Delegate=yes.",), "Limits", "warn", "Delegate=yes."),
        ("memory_bytes", (4 * GIB, GIB), "Machine", "warn", "1.0 of 4.0 GiB"),
        ("newest_source", 1e12, "Clock", "fail", "set the clock"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(
    data: Path, monkeypatch: pytest.MonkeyPatch, probe: str, value: object, topic: str, state: str, said: str
) -> None:
    monkeypatch.setattr(machine, probe, lambda *_: value)
    found = finding(data, topic)
    assert found[0] == state
    assert said in " ".join(found[1:])


def test_a_failure_is_the_exit_code_and_a_warning_is_not(data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "docker_version", lambda: None)
    assert run("doctor", "--data", data).exit_code == 0
    monkeypatch.setattr(machine, "uv_binary", lambda: None)
    assert run("doctor", "--data", data).exit_code == 1


def test_docker_is_needed_where_it_is_the_engine(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "docker_version", lambda: None)
    monkeypatch.setenv("CLARY_ENGINE", "docker")
    assert finding(data, "Docker")[0] == "fail"


def test_a_docker_that_is_not_for_this_user_is_told_from_none(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "docker_version", lambda: None)
    monkeypatch.setattr(machine, "docker_is_shut", lambda: True)
    assert finding(data, "Docker")[2].startswith("add the user to the group docker")
    monkeypatch.setattr(machine, "docker_is_shut", lambda: False)
    assert finding(data, "Docker")[2] == "systemctl start docker"


def test_the_registries_of_the_settings_are_tried(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.mkdir(parents=True, exist_ok=True)
    (data / "config.toml").write_text('[registries]\n"ghcr.io" = "127.0.0.1:5000/mirror"\n"quay.io" = "quay.local"\n')
    assert finding(data, "Registries")[:2] == ("ok", "127.0.0.1:5000, quay.local")
    monkeypatch.setattr(machine, "can_connect", lambda host: host != "quay.local")
    assert finding(data, "Registries")[:2] == ("warn", "quay.local cannot be connected to")
    (data / "config.toml").write_text('[registries]\n"ghcr.io" = { password = "x" }\n')
    assert finding(data, "Registries")[0] == "fail"


def test_networks_of_the_settings_that_docker_lacks_are_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding(data, "Networks")[0] == "ok"
    (data / "config.toml").write_text('[networks]\nsubnet-1 = "blue"\nsg-1 = "green"\nsg-2 = "red"\n')
    state, found, advised = finding(data, "Networks")
    assert (state, found) == ("warn", "Docker has no network green, red, which [networks] names")
    assert advised.endswith("docker network create green")
    monkeypatch.setattr(machine, "docker_networks", lambda: None)
    assert finding(data, "Networks")[:2] == ("ok", "blue, green, red")


def test_of_a_clary_that_runs_its_own_settings_are_told(clary: FakeClary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "limit_notes", lambda: ("processes are not limited",))
    monkeypatch.setattr(machine, "docker_limits_memory", lambda: True)
    assert finding(clary.data, "Limits")[0] == "warn"
    file = clary.data / "run" / "clary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "engine": "docker", "registries": ["mirror.local"]}))
    assert finding(clary.data, "Registries")[:2] == ("ok", "mirror.local")
    assert finding(clary.data, "Limits")[:2] == (
        "ok",
        "Docker holds containers to the CPU and memory of their instance types",
    )
    monkeypatch.setattr(machine, "docker_limits_memory", lambda: False)
    assert finding(clary.data, "Limits")[0] == "warn"


def test_a_wrong_setting_is_a_finding_and_the_rest_is_still_asked(
    data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLARY_WORKERS", "none")
    assert finding(data, "Settings")[:2] == ("fail", "--workers (environment): 'none' is not valid: expected int")
    assert finding(data, "uv")[0] == "ok"


def test_the_port_of_the_running_clary_is_fine(clary: FakeClary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "can_bind", lambda *_: False)
    monkeypatch.setenv("CLARY_PORT", clary.url.rpartition(":")[2])
    assert finding(clary.data, "Port")[:2] == ("ok", f"127.0.0.1:{clary.url.rpartition(':')[2]} is this Clary's")


def test_who_holds_the_port_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "can_bind", lambda *_: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("CLARY_PORT", str(server.getsockname()[1]))
        monkeypatch.setattr(machine, "listener", lambda port: f"nginx, pid 8 on {port}")
        assert "is taken (nginx, pid 8 on" in finding(data, "Port")[1]


def test_a_clary_that_refuses_our_key_is_a_failure(clary: FakeClary) -> None:
    clary.operations["ListEndpoints"] = [refused("bad key", "UnrecognizedClientException")]
    state, found, _ = finding(clary.data, "Clary")
    assert state == "fail"
    assert "bad key" in found


PING = "The primary container for production variant blue did not pass the ping health check."
REASON = "Failed to download model data after 3.2 s: s3://b/tide/model.tar.gz: no such key\nNext: clary doctor tide"


def words(text: str) -> str:
    """The text on one line: where it was wrapped depends on the terminal."""
    return " ".join(text.split())


@pytest.fixture
def failed(clary: FakeClary) -> FakeClary:
    variant = {"VariantName": "blue", "ModelName": "m", "InitialInstanceCount": 2, "InstanceType": "ml.m5.large"}
    container = {"Image": "img", "ModelDataUrl": "s3://b/tide/model.tar.gz"}
    endpoint = {"EndpointName": "tide", "EndpointConfigName": "c", "EndpointStatus": "Failed", "FailureReason": REASON}
    clary.operations |= {
        "DescribeEndpoint": [(200, endpoint)],
        "DescribeEndpointConfig": [(200, {"EndpointConfigName": "c", "ProductionVariants": [variant]})],
        "DescribeModel": [(200, {"ModelName": "m", "PrimaryContainer": container})],
    }
    log = LogFolder(clary.data / "logs").ensure(log_group("tide"), "blue/i-1")
    log.write_text("".join(f"line {n} [red]\n" for n in range(30)))
    return clary


def test_a_failed_endpoint_is_explained(failed: FakeClary, run: Run) -> None:
    result = run("doctor", "tide", "--data", failed.data)
    assert result.exit_code == 1
    out = result.stdout
    assert "Endpoint tide: Failed, config c" in out
    assert "Variant blue: 0 of 2 instances (ml.m5.large), model m" in out
    assert "image  img" in out and "data   s3://b/tide/model.tar.gz" in out
    assert "Why: Failed to download model data after 3.2 s: s3://b/tide/model.tar.gz: no such key Last" in words(out)
    assert "  line 29 [red]\n" in out and "  line 10 [red]\n" in out and "line 9 " not in out
    assert "aws s3 ls s3://b/tide/model.tar.gz" in out
    assert "aws sagemaker delete-endpoint --endpoint-name tide" in out


def test_a_traceback_of_three_equal_starts_is_shown_once(failed: FakeClary, run: Run) -> None:
    trace = ["Traceback (most recent call last):", '  File "/serve", line 9', "ValueError: no weights"]
    ended = Failure("exit", "exited with 1", 0, 0, "counted", tuple(trace * 3))
    reason = failure_reason(ended, Scene("tide", "blue", "primary", 1, "img", None, 3, 4.0))
    failed.operations["DescribeEndpoint"][0][1]["FailureReason"] = reason
    LogFolder(failed.data / "logs").path(log_group("tide"), "blue/i-1").write_text("\n".join(trace * 3) + "\n")
    out = run("doctor", "tide", "--data", failed.data).stdout
    assert "exited with 1 (3 starts)" in words(out)
    assert out.count("ValueError: no weights") == 1
    assert "blue:i-1.log, the same at each start" in words(out)


def test_of_a_pipeline_every_container_of_the_newest_instance_is_shown(failed: FakeClary, run: Run) -> None:
    folder = LogFolder(failed.data / "logs")
    for second, name in enumerate(("one", "two", "three"), 1):
        folder.ensure(log_group("tide"), f"blue/i-9/{name}")
        with folder.writer(log_group("tide"), f"blue/i-9/{name}") as writer:
            writer.write(4_000_000_000_000 + second, f"I am {name}".encode())
    out = run("doctor", "tide", "--data", failed.data).stdout
    assert [line for line in out.splitlines() if "I am" in line] == ["  I am one", "  I am two", "  I am three"]
    assert "line 29" not in out


def test_a_docker_that_does_not_answer_is_what_to_look_at_first(
    failed: FakeClary, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = failed.data / "run" / "clary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "engine": "docker"}))
    assert "No Docker engine answers" not in run("doctor", "tide", "--data", failed.data).stdout
    monkeypatch.setattr(machine, "docker_version", lambda: None)
    tried = run("doctor", "tide", "--data", failed.data).stdout.partition("What to try:\n")[2]
    assert tried.startswith("  No Docker engine answers")


def test_of_a_line_that_never_ends_the_ends_are_shown(failed: FakeClary, run: Run) -> None:
    LogFolder(failed.data / "logs").path(log_group("tide"), "blue/i-1").write_text(f"<{'x' * 300_000}>\n")
    out = run("doctor", "tide", "--data", failed.data).stdout
    assert len(out) < 3000 and "  <xxx" in out and "xxx>\n" in out


def test_a_log_cannot_steer_the_terminal(failed: FakeClary, run: Run) -> None:
    LogFolder(failed.data / "logs").path(log_group("tide"), "blue/i-1").write_bytes(
        b"\x1b]0;owned\x07 \xc2\x9bx\tok\r\n"
    )
    assert "  \ufffd]0;owned\ufffd \ufffdx\tok\n" in run("doctor", "tide", "--data", failed.data).stdout


def test_a_deleted_config_or_model_does_not_hide_the_reason(failed: FakeClary, run: Run) -> None:
    failed.operations["DescribeModel"] = [refused('Could not find model "arn".')]
    assert "no such key" in words(run("doctor", "tide", "--data", failed.data).stdout)
    failed.operations["DescribeEndpointConfig"] = [refused('Could not find endpoint configuration "arn".')]
    assert "no such key" in words(run("doctor", "tide", "--data", failed.data).stdout)


def test_names_and_flags_are_not_broken_at_their_hyphens(
    failed: FakeClary, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a-team/a-model:a-tag"
    failed.operations["DescribeEndpoint"][0][1]["FailureReason"] = f"It is so. Image: {image}. Elapsed: 1.0 s."
    assert f"  {image}.\n" in run("doctor", "tide", "--data", failed.data).stdout


def test_a_package_is_named_in_place_of_what_it_stands_for(failed: FakeClary, run: Run) -> None:
    container = {"ModelPackageName": "arn:aws:sagemaker:eu-west-1:111111111111:model-package/g/1"}
    failed.operations["DescribeModel"] = [(200, {"ModelName": "m", "PrimaryContainer": container})]
    failed.operations["DescribeEndpoint"][0][1]["FailureReason"] = (
        "Please make sure all images exist. Step: image: no. Image: img:1. Elapsed: 1.0 s."
    )
    out = run("doctor", "tide", "--data", failed.data).stdout
    assert f"    package  {container['ModelPackageName']}\n" in out and "data   none" not in out
    assert "docker pull img:1\n" in out


def test_what_is_under_way_is_shown(failed: FakeClary, run: Run) -> None:
    status = {"Status": "Creating", "StatusMessage": "0 of 2 instances ready; pull 120 of 480 MB"}
    pending = {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "blue", "VariantStatus": [status]}]}
    endpoint = {"EndpointName": "tide", "EndpointConfigName": "c", "EndpointStatus": "Creating"}
    failed.operations["DescribeEndpoint"] = [(200, {**endpoint, "PendingDeploymentSummary": pending})]
    assert "doing  0 of 2 instances ready; pull 120 of 480 MB\n" in run("doctor", "tide", "--data", failed.data).stdout


def test_an_endpoint_that_serves_is_healthy(failed: FakeClary, run: Run) -> None:
    variant = {"VariantName": "blue", "CurrentInstanceCount": 2, "DesiredInstanceCount": 2}
    endpoint = {"EndpointName": "tide", "EndpointConfigName": "c", "EndpointStatus": "InService"}
    failed.operations["DescribeEndpoint"] = [(200, {**endpoint, "ProductionVariants": [variant]})]
    result = run("doctor", "tide", "--data", failed.data)
    assert result.exit_code == 0
    assert "What to try" not in result.stdout
    variant["CurrentInstanceCount"] = 1
    assert run("doctor", "tide", "--data", failed.data).exit_code == 1


def test_an_unknown_endpoint_is_one_line_with_the_known_ones(clary: FakeClary, run: Run) -> None:
    clary.operations["DescribeEndpoint"] = [ABSENT]
    assert run("doctor", "tide", "--data", clary.data).stderr == "clary: no endpoint tide; there is none at all\n"
    clary.operations["ListEndpoints"] = [(200, {"Endpoints": [{"EndpointName": "ebb"}, {"EndpointName": "flow"}]})]
    assert run("doctor", "tide", "--data", clary.data).stderr == "clary: no endpoint tide; there are: ebb, flow\n"


@pytest.mark.parametrize(
    ("reason", "first"),
    [
        ("Step: download: The role arn:aws:iam::000000000000:role/r may not read s3://b/m.tar.gz.", "May it?"),
        (
            'Failed to extract model data archive from URL "s3://b/k". Step: ../x leaves the tree',
            "Look into the artifact",
        ),
        ("Please make sure all images exist. Step: no entry for img", "Add the image to a catalogue of your own"),
        ("Please make sure all images exist. Step: pull", "Can this machine pull it?"),
        ("CannotStartContainerError. Step: environment: uv pip install failed", "Does code/requirements.txt suit"),
        ("Step: create: python:3.11 runs what the model data brings, and it brings no serve", "Put a server into"),
        (f"{PING} Step: killed for memory (limit 8 GiB)", "Give it more memory"),
        (f"{PING} Step: exited with 3", "The log tells why"),
        (
            f"{PING} Step: exited with 3 (3 starts). Image: team/memory:1. Elapsed: 2.5 s.\nLast lines of the log, the "
            "same at each start:\nValueError: not enough values to unpack (expected 2, got 1)",
            "The log tells why",
        ),
        ("Step: create: subnet-1, sg-9 are not in [networks]: the settings file says", "Which networks are there?"),
        ("Step: create: there is no Docker network blue, which [networks] has", "Which networks are there?"),
        ("Step: create: the model has a VpcConfig, and models of the process engine", "Run the model in networks of"),
        ('Step: create: runc: exec: "serve": executable file not found in $PATH', "A container is started as `docker"),
        ("Step: create: unable to find user nobody2: no matching entries", "The image names a USER"),
        (
            "Step: create: no driver. The instance type has GPUs, which this Docker cannot give",
            "Does this machine have",
        ),
        (f"{PING} Step: ping answered 500", "The container must answer GET /ping"),
        (
            "Step: image: The Lambda function arn:f could not be invoked at http://l:9. There is no such function",
            "What does it answer?  aws lambda invoke --endpoint-url http://l:9 --function-name arn:f /dev/stdout",
        ),
        ("something new", "What did it write?"),
    ],
)
def test_advice_goes_by_the_step_that_failed(reason: str, first: str) -> None:
    assert advice(Diagnosis("tide", "Failed", reason, "c", ()))[0].startswith(first)


@pytest.mark.parametrize(
    ("docker_says", "first"),
    [
        ("manifest unknown: manifest unknown", "Is it there under this name?  docker pull"),
        ("no basic auth credentials", "Log in as the user that Clary runs as, and try:  docker login reg.local:5000"),
        ("dial tcp 10.0.0.1:5000: connect: connection refused", "Does it answer on this machine?  curl -i https://reg"),
        (
            'Get "https://registry-1.docker.io/v2/": dial tcp: no such host',
            "Does it answer on this machine?  curl -i https://registry-1.docker.io/v2/",
        ),
        ("x509: certificate signed by unknown authority", "What does it show?  openssl s_client"),
        ("no matching manifest for linux/amd64 in the manifest list entries", "Build it for this machine:"),
        ("write /var/lib/docker/tmp/x: no space left on device", "What takes the room?  docker system df"),
        ("something new", "Can this machine pull it?"),
    ],
)
def test_advice_goes_by_what_kept_an_image_away(docker_says: str, first: str) -> None:
    failed = failure(Attempt(parse("reg.local:5000/team/model:1")), docker_says)
    words = failure_reason(Failure("image", str(failed), 0, 0, "final"), Scene("e", "v", "primary", 1, "i", None, 1, 1))
    assert advice(Diagnosis("tide", "Failed", words, "c", ()))[0].startswith(first)


def test_a_certificate_is_looked_at_on_the_port_of_https_where_none_is_named() -> None:
    failed = failure(Attempt(parse("reg.local/team/model:1")), "x509: certificate signed by unknown authority")
    assert "-connect reg.local:443 " in advice(Diagnosis("tide", "Failed", str(failed), "c", ()))[0]


def test_advice_names_the_container_of_the_pipeline_that_failed() -> None:
    containers = (
        Container("first:1", "s3://b/1.tar.gz"),
        Container("x:2", "s3://b/2.tar.gz"),
        Container("x:2", "s3://b/3"),
    )
    diagnosis = Diagnosis("tide", "Failed", "", "c", (Variant("v", "m", "ml.m5.large", 1, 0, containers),))
    about = "Image: x:2. Elapsed: 1.0 s.\nNext: clary doctor tide"
    missing = replace(diagnosis, reason=f"Step: image: The registry docker.io has no x:2. {about}")
    assert advice(missing)[0].endswith("docker pull x:2")
    unpacked = replace(diagnosis, reason=f'Failed to extract archive from URL "s3://b/3". Step: unpack: bad. {about}')
    assert "aws s3 cp s3://b/3 -" in advice(unpacked)[0]


def test_advice_for_an_endpoint_in_service_goes_by_what_keeps_its_instances_down() -> None:
    doing = "1 of 2 instances ready; restarting after: image: The registry reg.local cannot be reached: no such host"
    variants = (Variant("a", "m", "t", 1, 1, (), "1 of 1 ready"), Variant("b", "m", "t", 2, 1, (), doing))
    suggested = advice(Diagnosis("tide", "InService", "", "c", variants))
    assert suggested == ["Does it answer on this machine?  curl -i https://reg.local/v2/"]
