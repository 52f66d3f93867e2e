"""What does an invocation of one of many models, or of an inference component, cost beside one of a single model?

Three endpoints of the built-in server (a script that needs no framework): one with the model alone, one with fifty, one
with the model as a component; signed requests through the gateway over a connection each, in turn. Naming the variant
keeps the single model off the short way, where the others are not either. The limit is a ratio of the medians of 1.1.

    .venv/bin/python bench/hit.py [--rounds 20]
"""

from __future__ import annotations

import argparse
import http.client
import io
import socket
import statistics
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from whole import ROLE, Whole, running

LIMIT = 1.1
MODELS = 50
EACH = 100
CATALOGUE = "[[image]]\nname = 'scripts'\npattern = 'scripts'\nruntime = 'script'\n"
SCRIPT = "def model_fn(model_dir): return 2\ndef predict_fn(data, model): return data * model\n"


def packed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(SCRIPT)
        archive.addfile(member, io.BytesIO(SCRIPT.encode()))
    return buffer.getvalue()


def deploy(clary: Whole, name: str, **container: object) -> None:
    sagemaker = clary.client("sagemaker")
    image = {"Image": "scripts:1", "Environment": {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}}
    sagemaker.create_model(ModelName=name, PrimaryContainer={**image, **container}, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})


def pack(clary: Whole, name: str, url: str) -> None:
    """Deploy a model as an inference component of the same name."""
    sagemaker = clary.client("sagemaker")
    variant = {"VariantName": "A", "InstanceType": "ml.clary.local", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ExecutionRoleArn=ROLE, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
    environment = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    container = {"Image": "scripts:1", "ArtifactUrl": url, "Environment": environment}
    needs = {"MinMemoryRequiredInMb": 128}
    sagemaker.create_inference_component(
        InferenceComponentName=name,
        EndpointName=name,
        Specification={"Container": container, "ComputeResourceRequirements": needs},
    )
    while sagemaker.describe_inference_component(InferenceComponentName=name)["InferenceComponentStatus"] == "Creating":
        time.sleep(0.2)


def ask(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert (answer.status, answer.read()) == (200, b"[6]"), answer.status


def measure(clary: Whole, rounds: int) -> dict[str, list[float]]:
    """Invoke the one and the other in turn; give seconds."""
    headers = {"Content-Type": "application/json"}
    kinds = {
        "a single model": ("/endpoints/one/invocations", headers),
        "single, long way": ("/endpoints/one/invocations", {**headers, "X-Amzn-SageMaker-Target-Variant": "A"}),
        "a component": ("/endpoints/packed/invocations", {**headers, "X-Amzn-SageMaker-Inference-Component": "packed"}),
        "one of many": ("/endpoints/many/invocations", {**headers, "X-Amzn-SageMaker-Target-Model": "m00.tar.gz"}),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    place = urlsplit(clary.url)
    connections = {kind: socket.create_connection((place.hostname, place.port)) for kind in kinds}
    for connection in connections.values():
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(rounds):
        for kind, (path, fields) in kinds.items():
            for _ in range(EACH):
                request = clary.request(path, b"[3]", fields)
                begun = time.perf_counter()
                ask(connections[kind], request)
                times[kind].append(time.perf_counter() - begun)
    for connection in connections.values():
        with closing(connection):
            pass
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Path(folder) / "catalogue.toml"
        catalogue.write_text(CATALOGUE)
        with running("--catalogue", str(catalogue)) as clary:
            s3 = clary.client("s3")
            s3.create_bucket(Bucket="models")
            for number in range(MODELS):
                s3.put_object(Bucket="models", Key=f"many/m{number:02}.tar.gz", Body=packed())
            deploy(clary, "one", ModelDataUrl="s3://models/many/m00.tar.gz")
            deploy(clary, "many", Mode="MultiModel", ModelDataUrl="s3://models/many/")
            pack(clary, "packed", "s3://models/many/m00.tar.gz")
            runtime = clary.client("sagemaker-runtime")
            for number in range(MODELS):
                runtime.invoke_endpoint(EndpointName="many", TargetModel=f"m{number:02}.tar.gz", Body=b"[3]")
            times = measure(clary, rounds)
    medians = {kind: statistics.median(found) * 1000 for kind, found in times.items()}
    for kind, found in times.items():
        slowest = sorted(found)[int(len(found) * 0.99)] * 1000
        print(f"{kind:<16} p50 {medians[kind]:6.2f} ms  p99 {slowest:6.2f} ms")
    ratio = medians["one of many"] / medians["a single model"]
    print(f"ratio of p50 {ratio:.2f}, {'within' if ratio <= LIMIT else 'above'} the limit of {LIMIT}")
    print(f"a component to a single model on the long way {medians['a component'] / medians['single, long way']:.2f}")


if __name__ == "__main__":
    main()
