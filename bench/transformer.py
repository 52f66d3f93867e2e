"""The SageMaker Python SDK's Transformer against a Clary of its own: transform with filters and logs, failure, stop.

    uv venv sdk && uv pip install --python sdk "sagemaker<3"
    .venv/bin/python bench/transformer.py --sdk-python sdk/bin/python

The SDK has an environment of its own, for it pins what Clary does not; this file runs in both. The container is
`bench/container.py`, which gives back what begins with `echo`.
"""

from __future__ import annotations

import os
from typing import Any

BUCKET = "sdk"


def with_client() -> None:
    import boto3
    import sagemaker
    from sagemaker.model import Model
    from sagemaker.transformer import Transformer

    session = sagemaker.Session(boto_session=boto3.Session(), default_bucket=BUCKET)
    model = Model(
        image_uri="python:3.11",
        model_data="s3://models/model.tar.gz",
        role="arn:aws:iam::000000000000:role/clary",
        name="transformed",
        sagemaker_session=session,
    )
    transformer = model.transformer(
        instance_count=2,
        instance_type="ml.m5.large",
        strategy="SingleRecord",
        assemble_with="Line",
        output_path=f"s3://{BUCKET}/out",
        accept="text/csv",
        max_payload=1,
        max_concurrent_transforms=2,
        env={"GREETING": "hello"},
        tags=[{"Key": "team", "Value": "a"}],
    )
    rows = {"content_type": "text/csv", "split_type": "Line"}
    filters = {"input_filter": "$[1:]", "output_filter": "$[0,-1]", "join_source": "Input"}
    transformer.transform(f"s3://{BUCKET}/in/", **rows, **filters, wait=True, logs=True)
    name = transformer.latest_transform_job.name
    assert session.describe_transform_job(name)["TransformJobStatus"] == "Completed"
    made = boto3.client("s3").get_object(Bucket=BUCKET, Key="out/1.csv.out")["Body"].read()
    assert made == b"id1,2\nid1,4\n", made
    print("transform               completed, joined")
    attached = Transformer.attach(name, session)
    assert (attached.strategy, attached.output_path) == ("SingleRecord", f"s3://{BUCKET}/out")
    print("attach                  finds it")
    try:
        transformer.transform(f"s3://{BUCKET}/bad/", **rows, wait=True, logs=True)
    except sagemaker.exceptions.UnexpectedStatusException as error:
        assert "bad/x.csv, record 2: ClientError: 418" in str(error), error
        print(f"transform, which fails  {str(error)[:200]}")
    else:
        raise AssertionError("it did not fail")
    transformer.transform(f"s3://{BUCKET}/slow/", **rows, wait=False, logs=False)
    transformer.stop_transform_job(wait=True)
    stopped = session.describe_transform_job(transformer.latest_transform_job.name)["TransformJobStatus"]
    assert stopped == "Stopped", stopped
    print("stop_transform_job      stopped")


def prepare(clary: Any) -> None:
    from whole import archive

    s3 = clary.client("s3")
    for bucket in ("models", BUCKET):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="models", Key="model.tar.gz", Body=archive())
    for number in range(4):
        s3.put_object(Bucket=BUCKET, Key=f"in/{number}.csv", Body=b"id%d,echo 1,2\nid%d,echo 3,4\n" % (number, number))
    s3.put_object(Bucket=BUCKET, Key="bad/x.csv", Body=b"echo\nfail 418\n")
    s3.put_object(Bucket=BUCKET, Key="slow/x.csv", Body=b"slow 1\n" * 100)


if __name__ == "__main__":
    if os.environ.get("INSIDE"):
        with_client()
    else:
        from whole import with_sdk

        with_sdk(__file__, __doc__, "sagemaker<3", prepare)
