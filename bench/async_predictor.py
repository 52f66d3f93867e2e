"""The SageMaker Python SDK's AsyncPredictor against a Clary of its own: deploy, predict, predict_async, a failure.

    uv venv sdk && uv pip install --python sdk "sagemaker<3"
    .venv/bin/python bench/async_predictor.py --sdk-python sdk/bin/python

The SDK has an environment of its own, for it pins what Clary does not; this file runs in both.
"""

from __future__ import annotations

import os
from typing import Any

ENDPOINT, BUCKET = "predicted", "sdk"


def with_client() -> None:
    import boto3
    import sagemaker
    from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
    from sagemaker.deserializers import BytesDeserializer
    from sagemaker.exceptions import AsyncInferenceModelError, ObjectNotExistedError
    from sagemaker.model import Model
    from sagemaker.predictor import Predictor
    from sagemaker.serializers import IdentitySerializer

    session = sagemaker.Session(boto_session=boto3.Session(), default_bucket=BUCKET)
    model = Model(
        image_uri="python:3.11",
        model_data="s3://models/model.tar.gz",
        role="arn:aws:iam::000000000000:role/clary",
        name=ENDPOINT,
        predictor_cls=Predictor,
        sagemaker_session=session,
    )
    config = AsyncInferenceConfig(
        output_path=f"s3://{BUCKET}/out",
        failure_path=f"s3://{BUCKET}/failed",
        max_concurrent_invocations_per_instance=2,
    )
    predictor = model.deploy(1, "ml.m5.large", endpoint_name=ENDPOINT, async_inference_config=config)
    predictor.serializer = IdentitySerializer("text/plain")
    predictor.predictor.deserializer = BytesDeserializer()
    waiter = WaiterConfig(max_attempts=30, delay=1)

    assert predictor.predict(b"echo from the SDK", waiter_config=waiter) == b"echo from the SDK"
    print("predict                 answered")
    later = predictor.predict_async(b"slow 2", inference_id="mine")
    try:
        later.get_result()
    except ObjectNotExistedError:
        print("predict_async           not there yet, as it should be")
    assert later.get_result(waiter) == b"{}"
    print("get_result              answered")
    try:
        predictor.predict(b"fail 503", waiter_config=waiter)
    except AsyncInferenceModelError as error:
        assert "Received server error (503) from primary" in str(error), error
        print(f"predict, which fails    {str(error)[:90]}")
    else:
        raise AssertionError("it did not fail")
    predictor.delete_endpoint()
    print("deleted")


def prepare(clary: Any) -> None:
    from whole import archive

    s3 = clary.client("s3")
    for bucket in ("models", BUCKET):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="models", Key="model.tar.gz", Body=archive())


if __name__ == "__main__":
    if os.environ.get("INSIDE"):
        with_client()
    else:
        from whole import with_sdk

        with_sdk(__file__, __doc__, "sagemaker<3", prepare)
