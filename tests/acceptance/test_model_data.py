"""Model data that is not one archive, through the bundled S3."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import IMAGE, SERVE, Clary

pytestmark = pytest.mark.acceptance


def test_a_prefix_of_plain_objects_is_served_as_a_tree(clary: Clary) -> None:
    sagemaker = clary.client("sagemaker")
    for key, text in (("name.txt", "plain"), ("serve.py", SERVE), ("deep/er/file", "x")):
        clary.upload(f"plain/{key}", text.encode())
    s3 = {"S3Uri": "s3://models/plain/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {"Image": IMAGE, "ModelDataSource": {"S3DataSource": s3}}
    sagemaker.create_model(ModelName="plain", PrimaryContainer=container)
    variant = {"VariantName": "A", "ModelName": "plain", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="plain", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="plain", EndpointConfigName="plain")
    clary.wait("plain")
    assert clary.invoke("plain")["name"] == "plain"
    clary.delete("plain")


def test_a_multi_model_prefix_is_looked_up_at_once(clary: Clary) -> None:
    sagemaker = clary.client("sagemaker")
    clary.upload("looked-up/one.tar.gz", b"x")
    for number, prefix in enumerate(("s3://models/looked-up/", "s3://models/looked-up")):
        container = {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": prefix}
        sagemaker.create_model(ModelName=f"looked-up-{number}", PrimaryContainer=container)
        sagemaker.delete_model(ModelName=f"looked-up-{number}")
    container = {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": "s3://models/none/"}
    with pytest.raises(ClientError, match=r"Could not find model data at s3://models/none/\."):
        sagemaker.create_model(ModelName="none", PrimaryContainer=container)
