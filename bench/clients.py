"""The clients that people bring: SageMaker's Python SDK 3 (ModelBuilder, resources) and MLflow's deployments.

    uv venv sdk && uv pip install --python sdk "sagemaker>=3" mlflow
    .venv/bin/python bench/clients.py --sdk-python sdk/bin/python

They have an environment of their own, for they pin what Clary does not; this file runs in both. Nothing of theirs is
told about Clary but AWS_ENDPOINT_URL and the key. The first run takes what building two environments of models takes.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

BUCKET = "sdk"
ROLE = "arn:aws:iam::000000000000:role/clary"
SCIKIT_LEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-cpu-py3"
HANDLERS = b"""
import json
def model_fn(model_dir): return 2.0
def input_fn(body, kind): return [float(each) for each in (body if isinstance(body, str) else body.decode()).split(",")]
def predict_fn(numbers, weight): return [weight * each for each in numbers]
def output_fn(numbers, kind): return json.dumps(numbers)
"""


def with_client() -> None:
    import boto3

    step("ModelBuilder: build, deploy, invoke, delete", lambda: model_builder(boto3))
    step("resources: create, wait, transform, list, delete", lambda: resources(boto3))
    step("MLflow: create, list, predict, delete", mlflow_deployments)


def step(name: str, work: Any) -> None:
    begun = time.perf_counter()
    work()
    print(f"{name:50} {time.perf_counter() - begun:6.1f} s", flush=True)


def model_builder(boto3: Any) -> None:
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.serve import ModelBuilder

    builder = ModelBuilder(
        s3_model_data_url=f"s3://{BUCKET}/model.tar.gz",
        image_uri=SCIKIT_LEARN,
        role_arn=ROLE,
        instance_type="ml.m5.large",
        sagemaker_session=Session(boto_session=boto3.Session(), default_bucket=BUCKET),
    )
    builder.build(model_name="built")
    endpoint = builder.deploy(endpoint_name="built", initial_instance_count=1, instance_type="ml.m5.large")
    answer = endpoint.invoke(body=b"1,2", content_type="text/csv").body.read()
    assert answer == b"[2.0, 4.0]", answer
    endpoint.delete()


def resources(boto3: Any) -> None:
    from sagemaker.core import resources, shapes

    data = f"s3://{BUCKET}/model.tar.gz"
    model = resources.Model.create(
        model_name="mine",
        primary_container=shapes.ContainerDefinition(image=SCIKIT_LEARN, model_data_url=data),
        execution_role_arn=ROLE,
        tags=[shapes.Tag(key="team", value="a")],
    )
    variant = shapes.ProductionVariant(
        variant_name="A", model_name="mine", instance_type="ml.m5.large", initial_instance_count=1
    )
    config = resources.EndpointConfig.create(endpoint_config_name="mine", production_variants=[variant])
    endpoint = resources.Endpoint.create(endpoint_name="mine", endpoint_config_name="mine")
    endpoint.wait_for_status("InService")
    answer = endpoint.invoke(body=b"3", content_type="text/csv").body.read()
    assert answer == b"[6.0]", answer
    assert "mine" in [each.endpoint_name for each in resources.Endpoint.get_all()]
    source = shapes.TransformS3DataSource(s3_data_type="S3Prefix", s3_uri=f"s3://{BUCKET}/in/")
    job = resources.TransformJob.create(
        transform_job_name="mine",
        model_name="mine",
        batch_strategy="SingleRecord",
        transform_input=shapes.TransformInput(
            data_source=shapes.TransformDataSource(s3_data_source=source), content_type="text/csv", split_type="Line"
        ),
        transform_output=shapes.TransformOutput(s3_output_path=f"s3://{BUCKET}/out", assemble_with="Line"),
        transform_resources=shapes.TransformResources(instance_type="ml.m5.large", instance_count=1),
    )
    job.wait()
    made = boto3.client("s3").get_object(Bucket=BUCKET, Key="out/a.csv.out")["Body"].read()
    assert made == b"[2.0, 4.0]\n[6.0, 8.0]\n", made
    for each in (endpoint, config, model):
        each.delete()


def mlflow_deployments() -> None:
    import mlflow
    import numpy as np
    import pandas as pd
    from mlflow.deployments import get_deploy_client
    from sklearn.linear_model import LogisticRegression

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        given = pd.DataFrame({"x": np.arange(10.0)})
        mlflow.sklearn.save_model(LogisticRegression().fit(given, given.x > 4), path)
        client = get_deploy_client("sagemaker:/us-east-1")
        image = f"000000000000.dkr.ecr.us-east-1.amazonaws.com/mlflow-pyfunc:{mlflow.__version__}"
        client.create_deployment("flow", path, config={"image_url": image, "execution_role_arn": ROLE})
        assert "flow" in [each["EndpointName"] for each in client.list_deployments()]
        answer = client.predict("flow", pd.DataFrame({"x": [1.0, 8.0]}))
        assert list(answer.get_predictions()[0]) == [False, True], answer
        client.delete_deployment("flow")


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(HANDLERS)
        packed.addfile(member, io.BytesIO(HANDLERS))
    return buffer.getvalue()


def prepare(clary: Any) -> None:
    s3 = clary.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=archive())
    s3.put_object(Bucket=BUCKET, Key="in/a.csv", Body=b"1,2\n3,4\n")


if __name__ == "__main__":
    if os.environ.get("INSIDE"):
        with_client()
    else:
        from whole import with_sdk

        with_sdk(__file__, __doc__, "sagemaker>=3 and mlflow", prepare)
