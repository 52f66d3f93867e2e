"""Multi-model endpoints with real servers: Clary's own on the process engine, AWS's Java server on Docker.

At the end adapters, as Clary's own takes them: its environment is there already.
"""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import ROLE, Clary, running, running_on_docker, wait_until
from tests.acceptance.test_components import LEAST, gone, host, invoke, remove, wait
from tests.servers import multi_model_toolkit

pytestmark = pytest.mark.acceptance

SCRIPT = """
import os, helper
def model_fn(model_dir):
    return [helper.WORD, os.getpid()]
def predict_fn(data, model):
    if data.size and data.flat[0] == 13:
        os._exit(1)
    return model
"""
ADAPTED = """
import os
def model_fn(model_dir):
    return {}
def load_adapter_fn(model, name, adapter_dir):
    model[name] = open(os.path.join(adapter_dir, "words.txt")).read()
def unload_adapter_fn(model, name):
    del model[name]
def predict_fn(data, model, context):
    name = context.get_request_header(0, "X-Amzn-SageMaker-Adapter-Identifier")
    return {"says": model.get(name), "pid": os.getpid()}
"""
BROKEN = "def model_fn(model_dir): raise ValueError('no weights in here')"
CATALOGUE = """\
[[image]]
name = "scripts"
pattern = 'scripts'
runtime = "script"
"""

Place = tuple[Clary, str]
"""A Clary, and the image that its multi-model containers have."""


def packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@contextmanager
def on_processes() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Path(folder) / "catalogue.toml"
        catalogue.write_text(CATALOGUE)
        with running("--catalogue", str(catalogue)) as started:
            yield started, "scripts:1"


@contextmanager
def on_docker() -> Iterator[Place]:
    image = multi_model_toolkit()
    with running_on_docker() as started:
        yield started, image


@pytest.fixture(scope="module", params=["built-in", "java"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "java":
        request.getfixturevalue("docker_here")
    with on_docker() if request.param == "java" else on_processes() as made:
        yield made


def aws(clary: Clary, *arguments: str) -> Any:
    done = clary.aws(*arguments)
    assert done.returncode == 0, f"aws {' '.join(arguments)}\n{done.stdout}{done.stderr}\n{clary.output()[-4000:]}"
    return json.loads(done.stdout) if done.stdout else None


@pytest.fixture(scope="module")
def many(place: Place) -> Iterator[Clary]:
    """An endpoint `many` with models of the same modules, made by the aws CLI."""
    clary, image = place
    for word in ("one", "two"):
        clary.upload(f"many/{word}.tar.gz", packed({"code/inference.py": SCRIPT, "code/helper.py": f"WORD = {word!r}"}))
    container = f"Image={image},Mode=MultiModel,ModelDataUrl=s3://models/many/"
    variant = "VariantName=AllTraffic,ModelName=many,InstanceType=ml.m5.large,InitialInstanceCount=1"
    sagemaker = ("sagemaker", "create-model", "--model-name", "many", "--execution-role-arn", ROLE)
    aws(clary, *sagemaker, "--primary-container", container)
    aws(
        clary, "sagemaker", "create-endpoint-config", "--endpoint-config-name", "many", "--production-variants", variant
    )
    aws(clary, "sagemaker", "create-endpoint", "--endpoint-name", "many", "--endpoint-config-name", "many")
    wait_until(lambda: status(clary) != "Creating", "the endpoint is there", clary.output, 240)
    assert status(clary) == "InService", clary.client("sagemaker").describe_endpoint(EndpointName="many")
    yield clary
    clary.delete("many")
    assert image == "scripts:1" or not clary.containers("many")


def status(clary: Clary) -> str:
    return str(clary.client("sagemaker").describe_endpoint(EndpointName="many")["EndpointStatus"])


def ask(clary: Clary, target: str, body: str = "[]") -> list[Any]:
    runtime = clary.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(
        EndpointName="many", TargetModel=target, Body=body, ContentType="application/json", Accept="application/json"
    )
    return list(json.loads(answer["Body"].read()))


def test_the_aws_cli_is_answered_by_the_model_that_it_names(many: Clary, tmp_path: Path) -> None:
    body, answer = tmp_path / "body", tmp_path / "answer"
    body.write_text("[]")
    to = ("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "many", "--content-type", "application/json")
    for word in ("one", "two", "one"):
        aws(many, *to, "--target-model", f"{word}.tar.gz", "--body", f"fileb://{body}", str(answer))
        assert json.loads(answer.read_text())[0] == word


def test_models_do_not_mix_and_stay_loaded(many: Clary) -> None:
    targets = ["one.tar.gz", "two.tar.gz"] * 10
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda target: ask(many, target), targets))
    assert [word for word, _ in answers] == ["one", "two"] * 10
    assert len({pid for _, pid in answers}) == 2


def test_a_model_that_arrives_later_is_found(many: Clary) -> None:
    many.upload("many/sub/late.tar.gz", packed({"code/inference.py": SCRIPT, "code/helper.py": "WORD = 'late'"}))
    assert ask(many, "sub/late.tar.gz")[0] == "late"


def test_one_that_does_not_load_is_an_error_of_its_own_until_it_is_mended(many: Clary) -> None:
    many.upload("many/broken.tar.gz", packed({"code/inference.py": BROKEN}))
    with pytest.raises(ClientError) as error:
        ask(many, "broken.tar.gz")
    assert error.value.response["Error"]["Code"] == "ModelError", error.value
    assert ask(many, "one.tar.gz")[0] == "one"
    many.upload("many/mended.tar.gz", packed({"code/inference.py": SCRIPT, "code/helper.py": "WORD = 'mended'"}))
    assert ask(many, "mended.tar.gz")[0] == "mended"


def test_one_that_crashes_comes_back_and_harms_no_other(many: Clary) -> None:
    before = ask(many, "one.tar.gz"), ask(many, "two.tar.gz")
    with pytest.raises(ClientError, match="ModelError"):
        ask(many, "two.tar.gz", "[13]")
    assert ask(many, "one.tar.gz") == before[0]

    wait_until(lambda: answered_by_another(many, "two", before[1][1]), "the model is back", many.output)


def test_the_container_is_replaced_when_its_server_dies(many: Clary, place: Place) -> None:
    if place[1] != "scripts:1":
        pytest.skip("which process of a container is the server is known for ours")
    pid = ask(many, "one.tar.gz")[1]
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]), signal.SIGKILL)
    wait_until(lambda: answered_by_another(many, "one", pid), "a new container answers", many.output)


def answered_by_another(clary: Clary, word: str, pid: int) -> bool:
    try:
        answer = ask(clary, f"{word}.tar.gz")
    except ClientError:
        return False
    return answer[0] == word and answer[1] != pid


def test_a_script_takes_adapters_in_all_workers(place: Place) -> None:
    clary, image = place
    if image != "scripts:1":
        pytest.skip("AWS's toolkit has no adapters")
    sagemaker = clary.client("sagemaker")
    host(clary, "tongues")
    container = {"Image": image, "ArtifactUrl": clary.upload("llm.tar.gz", packed({"code/inference.py": ADAPTED}))}
    base = {"Container": {**container, "Environment": {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}}}
    french = {"ArtifactUrl": clary.upload("french.tar.gz", packed({"words.txt": "bonjour"}))}
    for name, specification in (
        ("llm", {**base, "ComputeResourceRequirements": LEAST}),
        ("french", {"BaseInferenceComponentName": "llm", "Container": french}),
    ):
        counted = {"RuntimeConfig": {"CopyCount": 1}} if name == "llm" else {}
        sagemaker.create_inference_component(
            InferenceComponentName=name, EndpointName="tongues", VariantName="AllTraffic",
            Specification=specification, **counted,
        )  # fmt: skip
        wait(clary, name)
    answered: set[int] = set()

    def both_have() -> bool:
        with ThreadPoolExecutor(8) as pool:
            for said in pool.map(lambda _: invoke(clary, "tongues", "french", b"[]"), range(16)):
                assert said["says"] == "bonjour"
                answered.add(said["pid"])
        return len(answered) == 2

    wait_until(both_have, "both workers have the adapter", clary.output)
    assert invoke(clary, "tongues", "llm", b"[]")["says"] is None
    sagemaker.delete_inference_component(InferenceComponentName="french")
    wait_until(lambda: gone(clary, "french"), "french is gone", clary.output)
    remove(clary, "tongues", "llm")
