"""Model servers that other people wrote, in containers: MLflow's, AWS's toolkit, LitServe; deployed by the aws CLI."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import ROLE, Clary, running_on_docker, wait_until
from tests.containers import build, docker, needs_docker
from tests.servers import TOOLKIT, image_with_servers

pytestmark = [pytest.mark.acceptance, needs_docker]

INFERENCE = """\
import os, joblib, boto3
from botocore.exceptions import ClientError

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))

def predict_fn(data, model):
    return model.predict(data) if data.ndim else ask_aws()

def ask_aws():
    credentials = boto3.Session().get_credentials()
    if credentials is None:
        return {"method": None, "told": [name for name in os.environ if name.startswith("AWS_CONTAINER")]}
    s3 = boto3.client("s3")
    said = {"method": credentials.method, "who": boto3.client("sts").get_caller_identity()["Arn"],
            "size": s3.get_object(Bucket="models", Key="toolkit/model.tar.gz")["ContentLength"]}
    try:
        s3.put_object(Bucket="models", Key="toolkit/other", Body=b"")
    except ClientError as error:
        said["refused"] = error.response["Error"]["Code"]
    return said
"""

LITSERVE = """\
#!/usr/bin/env python3
import joblib, os, litserve

class Iris(litserve.LitAPI):
    def setup(self, device):
        self.model = joblib.load("/opt/ml/model/model.joblib")

    def decode_request(self, request):
        return request["flowers"]

    def predict(self, flowers):
        return self.model.predict(flowers)

    def encode_response(self, kinds):
        return {"kinds": kinds.tolist()}

if __name__ == "__main__":
    server = litserve.LitServer(Iris(api_path="/invocations"), accelerator="cpu", healthcheck_path="/ping")
    server.run(port=int(os.environ["SAGEMAKER_BIND_TO_PORT"]), generate_client_file=False)
"""


@dataclass(frozen=True)
class Server:
    """One of the servers: how its image is made of that with all packages, and how it is spoken to."""

    files: dict[str, str]
    lines: tuple[str, ...]
    folder: str
    """Which of the trained models it takes."""
    code: dict[str, str]
    """What lies beside the model in its archive."""
    question: Callable[[list[Any]], Any]
    kinds: Callable[[Any], list[int]]
    says: str
    """Words of its log."""


SERVERS = {
    "mlflow": Server(
        {},
        # As `mlflow sagemaker build-and-push-container` writes it; the model's packages are there already.
        (
            "ENV MLFLOW_DISABLE_ENV_CREATION=true MLFLOW_MODELS_WORKERS=1",
            'ENTRYPOINT ["python3", "-c", "import sys; from mlflow.models import container as C; '
            "C._init(sys.argv[1], 'local')\"]",
        ),
        "mlflow",
        {},
        lambda flowers: {"inputs": flowers},
        lambda answer: list(answer["predictions"]),
        "Uvicorn running on http://127.0.0.1:8000",
    ),
    "toolkit": Server(
        {"start": TOOLKIT},
        ("ENV SAGEMAKER_MODEL_SERVER_WORKERS=1", 'ENTRYPOINT ["/start"]'),
        "plain",
        {"code/inference.py": INFERENCE},
        lambda flowers: flowers,
        lambda answer: list(answer),
        "Model server started",
    ),
    "litserve": Server(
        {"start": LITSERVE},
        ('ENTRYPOINT ["/start"]',),
        "plain",
        {},
        lambda flowers: {"flowers": flowers},
        lambda answer: list(answer["kinds"]),
        "Uvicorn running on http://0.0.0.0:8080",
    ),
}


@dataclass(frozen=True)
class Trained:
    """What the training left: the models, and what this one said before any server had it."""

    folder: Path
    flowers: list[list[float]]
    kinds: list[int]

    def archive(self, server: Server) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(self.folder / server.folder, ".")
            for path, text in server.code.items():
                member = tarfile.TarInfo(path)
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        return buffer.getvalue()


@pytest.fixture(scope="module")
def packages() -> str:
    return image_with_servers()


@pytest.fixture(scope="module")
def trained(packages: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Take out what was trained where the servers run: none of their packages has to be here."""
    folder = tmp_path_factory.mktemp("trained")
    docker("run", "--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{folder}:/out",
           "--entrypoint", "cp", packages, "-r", "/trained/.", "/out")  # fmt: skip
    local = json.loads((folder / "local.json").read_text())
    return Trained(folder, local["asked"], local["kinds"])


@pytest.fixture(scope="module")
def clary() -> Iterator[Clary]:
    with running_on_docker() as started:
        yield started


def image_of(name: str, packages: str) -> str:
    return build(f"clary/test-{name}:1", SERVERS[name].files, *SERVERS[name].lines, base=packages)


def aws(clary: Clary, *arguments: str) -> Any:
    done = clary.aws(*arguments)
    assert done.returncode == 0, f"aws {' '.join(arguments)}\n{done.stdout}{done.stderr}\n{clary.output()[-4000:]}"
    return json.loads(done.stdout) if done.stdout else None


def deploy(clary: Clary, name: str, image: str, url: str, *more: str) -> None:
    """Create model, configuration and endpoint with the aws CLI."""
    aws(clary, "sagemaker", "create-model", "--model-name", name, "--primary-container",
        f"Image={image},ModelDataUrl={url}", *more)  # fmt: skip
    variant = f"VariantName=AllTraffic,ModelName={name},InstanceType=ml.m5.large,InitialInstanceCount=1"
    aws(clary, "sagemaker", "create-endpoint-config", "--endpoint-config-name", name, "--production-variants", variant)
    aws(clary, "sagemaker", "create-endpoint", "--endpoint-name", name, "--endpoint-config-name", name)


def described(clary: Clary, name: str) -> dict[str, Any]:
    """Describe an endpoint once it is in service; such servers may need their time on a machine that is busy."""
    sagemaker = clary.client("sagemaker")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 240})
    return dict(sagemaker.describe_endpoint(EndpointName=name))


def events(clary: Clary, name: str) -> list[str]:
    """Read the one log of an endpoint as a user of the aws CLI does."""
    group = f"/aws/sagemaker/Endpoints/{name}"
    (stream,) = clary.client("logs").describe_log_streams(logGroupName=group)["logStreams"]
    assert stream["logStreamName"].startswith("AllTraffic/i-")
    read = aws(clary, "logs", "get-log-events", "--log-group-name", group, "--log-stream-name",
               stream["logStreamName"], "--start-from-head")  # fmt: skip
    return [event["message"] for event in read["events"]]


@pytest.mark.parametrize("name", SERVERS)
def test_a_real_server_answers_as_its_model_does(
    clary: Clary, packages: str, trained: Trained, name: str, tmp_path: Path
) -> None:
    server, image = SERVERS[name], image_of(name, packages)
    url = clary.upload(f"{name}/model.tar.gz", trained.archive(server))
    deploy(clary, name, image, url, "--execution-role-arn", ROLE)
    (deployed,) = described(clary, name)["ProductionVariants"][0]["DeployedImages"]
    assert deployed["SpecifiedImage"] == image
    digest = docker("image", "inspect", "--format", "{{.Id}}", image)
    assert deployed["ResolvedImage"] == f"clary/test-{name}@{digest}"

    question, answer = tmp_path / "question", tmp_path / "answer"
    question.write_text(json.dumps(server.question(trained.flowers)))
    to = ("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", name, "--body", f"fileb://{question}")
    said = aws(clary, *to, "--content-type", "application/json", str(answer))
    assert said["ContentType"].startswith("application/json")
    assert said["InvokedProductionVariant"] == "AllTraffic"
    assert server.kinds(json.loads(answer.read_bytes())) == trained.kinds
    assert len(set(trained.kinds)) == 3, "the flowers that it is asked about are of all kinds"

    with pytest.raises(ClientError, match=r"\(ModelError\).*Received (client|server) error \([45]\d\d\) from primary"):
        clary.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=b"{", ContentType="application/json")
    wait_until(lambda: any(server.says in line for line in events(clary, name)), "its log is there", clary.output)

    clary.delete(name)
    assert not clary.containers(name)


def deploy_toolkit(clary: Clary, name: str, role: str, packages: str, trained: Trained, *more: str) -> int:
    """Deploy the toolkit's server; give the size of its model."""
    archive = trained.archive(SERVERS["toolkit"])
    url = clary.upload("toolkit/model.tar.gz", archive)
    deploy(clary, name, image_of("toolkit", packages), url, "--execution-role-arn", role, *more)
    described(clary, name)
    return len(archive)


def asked_for_aws(clary: Clary, name: str) -> Any:
    """Let the model's own code ask AWS; it takes a lone number as the wish."""
    runtime = clary.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=name, Body=b"0", ContentType="application/json")
    return json.loads(answer["Body"].read())


@pytest.fixture(scope="module")
def role(clary: Clary, tmp_path_factory: pytest.TempPathFactory) -> str:
    policy = tmp_path_factory.mktemp("role") / "policy.json"
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::models/*"}
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": statement}))
    return clary.clary("roles", "create", "reader", "--policy", str(policy)).stdout.strip()


def test_code_that_the_toolkit_runs_has_the_role_without_being_configured(
    clary: Clary, role: str, packages: str, trained: Trained
) -> None:
    size = deploy_toolkit(clary, "open", role, packages, trained)
    said = asked_for_aws(clary, "open")
    assert said.pop("who").startswith("arn:aws:sts::000000000000:assumed-role/reader/i-")
    assert said == {"method": "container-role", "size": size, "refused": "AccessDenied"}
    clary.delete("open")
    assert not clary.containers("open")


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a container's network namespace takes root")
def test_an_isolated_container_has_no_credentials(clary: Clary, role: str, packages: str, trained: Trained) -> None:
    deploy_toolkit(clary, "shut", role, packages, trained, "--enable-network-isolation")
    assert asked_for_aws(clary, "shut") == {"method": None, "told": []}
    clary.delete("shut")
    assert not clary.containers("shut")
