"""A model made from a package of the registry runs what the package says."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import IMAGE, Clary, model_archive

pytestmark = pytest.mark.acceptance


def test_an_approved_version_is_deployed_and_answers(clary: Clary) -> None:
    sagemaker = clary.client("sagemaker")
    url = clary.upload("registry/model.tar.gz", model_archive("packaged"))
    sagemaker.create_model_package_group(ModelPackageGroupName="flowers")
    container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": {"GREETING": "package"}}
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="flowers",
        InferenceSpecification={"Containers": [container], "SupportedContentTypes": ["text/csv"]},
    )["ModelPackageArn"]
    primary = {"ModelPackageName": arn}
    with pytest.raises(ClientError, match="is not approved for deployment"):
        sagemaker.create_model(ModelName="packaged", PrimaryContainer=primary)
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    sagemaker.create_model(ModelName="packaged", PrimaryContainer=primary)
    variant = {"VariantName": "A", "ModelName": "packaged", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="packaged", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="packaged", EndpointConfigName="packaged")
    sagemaker.delete_model_package(ModelPackageName=arn)
    sagemaker.delete_model_package_group(ModelPackageGroupName="flowers")
    clary.wait("packaged")
    answer = clary.invoke("packaged")
    assert (answer["name"], answer["env"]) == ("packaged", "package")
    clary.delete("packaged")
