"""The command lines on which `aws` and `clary` are compared; most are generated from a few lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clary.cli.aws import shapes
from clary.cli.aws.skeleton import sample_input

IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/tide:1@sha256:" + "a" * 64
ROLE = "arn:aws:iam::123456789012:role/tide"
TIME = 1732300000.25

OPERATIONS = (
    "create-model",
    "create-endpoint-config",
    "create-endpoint",
    "create-transform-job",
    "stop-transform-job",
    "list-transform-jobs",
    "create-inference-component",
    "update-inference-component-runtime-config",
    "create-model-package",
    "add-tags",
    "delete-model",
    "describe-model",
    "describe-endpoint",
    "list-models",
    "list-endpoints",
    "list-endpoint-configs",
    "list-tags",
    "update-endpoint",
    "update-endpoint-weights-and-capacities",
)
"""Those whose option tables and whole documents are compared."""

MINIMAL: dict[str, list[str]] = {
    "create-model": ["--model-name", "m"],
    "create-endpoint-config": ["--endpoint-config-name", "c", "--production-variants", "VariantName=v,ModelName=m"],
    "create-endpoint": ["--endpoint-name", "e", "--endpoint-config-name", "c"],
    "create-transform-job": [
        *["--transform-job-name", "j", "--model-name", "m"],
        *["--transform-input", "DataSource={S3DataSource={S3DataType=S3Prefix,S3Uri=s3://b/i}}"],
        *["--transform-output", "S3OutputPath=s3://b/o"],
        *["--transform-resources", "InstanceType=ml.m5.large,InstanceCount=1"],
    ],
    "stop-transform-job": ["--transform-job-name", "j"],
    "list-transform-jobs": [],
    "create-inference-component": [
        *["--inference-component-name", "i", "--endpoint-name", "e", "--variant-name", "v"],
        *["--specification", "ModelName=m,ComputeResourceRequirements={MinMemoryRequiredInMb=128}"],
        *["--runtime-config", "CopyCount=1"],
    ],
    "update-inference-component-runtime-config": [
        *["--inference-component-name", "i", "--desired-runtime-config", "CopyCount=2"]
    ],
    "create-model-package": ["--model-package-group-name", "g", "--source-uri", "s3://b/k"],
    "add-tags": ["--resource-arn", "arn", "--tags", "Key=a,Value=b"],
    "delete-model": ["--model-name", "m"],
    "describe-model": ["--model-name", "m"],
    "describe-endpoint": ["--endpoint-name", "e"],
    "list-models": [],
    "list-endpoints": [],
    "list-endpoint-configs": [],
    "list-tags": ["--resource-arn", "arn"],
    "update-endpoint": ["--endpoint-name", "e", "--endpoint-config-name", "c"],
    "update-endpoint-weights-and-capacities": [
        *["--endpoint-name", "e"],
        *["--desired-weights-and-capacities", "VariantName=v,DesiredWeight=0.5,DesiredInstanceCount=2"],
    ],
}

ANSWERS: dict[str, Any] = {
    "CreateModel": {"ModelArn": "arn:aws:sagemaker:eu-west-1:123456789012:model/m"},
    "CreateEndpointConfig": {"EndpointConfigArn": "arn:c"},
    "CreateEndpoint": {"EndpointArn": "arn:e", "Unknown": "dropped"},
    "CreateTransformJob": {"TransformJobArn": "arn:j"},
    "ListTransformJobs": {"TransformJobSummaries": [{"TransformJobName": "j", "CreationTime": TIME}]},
    "CreateInferenceComponent": {"InferenceComponentArn": "arn:i"},
    "UpdateInferenceComponentRuntimeConfig": {"InferenceComponentArn": "arn:i"},
    "UpdateEndpoint": {"EndpointArn": "arn:e"},
    "AddTags": {"Tags": [{"Key": "a", "Value": "b"}, {"Key": "c"}]},
    "ListTags": {"Tags": [{"Key": "a", "Value": "β"}]},
    "DescribeModel": {
        "ModelName": "m",
        "CreationTime": TIME,
        "ModelArn": "arn:m",
        "EnableNetworkIsolation": False,
        "ExecutionRoleArn": None,
        "PrimaryContainer": {"Environment": {"B": "2", "A": "1"}, "Image": IMAGE, "Mode": "SingleModel"},
        "VpcConfig": {"SecurityGroupIds": ["sg-1", "sg-2"], "Subnets": ["subnet-1"]},
        "Containers": [],
    },
    "DescribeEndpoint": {
        "EndpointName": "e",
        "EndpointArn": "arn:e",
        "EndpointStatus": "InService",
        "CreationTime": TIME,
        "LastModifiedTime": 1732300000,
        "ProductionVariants": [
            {
                "VariantName": "one",
                "CurrentWeight": 1.0,
                "DeployedImages": [{"SpecifiedImage": "i", "ResolvedImage": "j"}],
            },
            {"VariantName": "two", "CurrentWeight": 0.25, "CurrentInstanceCount": 3},
        ],
    },
    "ListModels": {"Models": [{"ModelName": "m", "ModelArn": "arn:m", "CreationTime": TIME}]},
    "ListEndpoints": {"Endpoints": []},
    "ListEndpointConfigs": {"EndpointConfigs": [{"EndpointConfigName": f"c{n}"} for n in range(3)]},
}


@dataclass(frozen=True)
class Case:
    """One command line, what the service answers, and what differs in the environment."""

    name: str
    arguments: list[str]
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    environment: dict[str, str | None] = field(default_factory=dict)


SHORTHAND_GOOD = {
    "word": "Image=x",
    "words": f"Image={IMAGE},Mode=MultiModel",
    "spaces": " Image = x , Mode = SingleModel ",
    "inner space": "Image=x y,Mode=MultiModel",
    "newline": "Image=x,\nMode=MultiModel",
    "equals in a value": "Image=eD09,Mode=MultiModel",
    "empty value": "Image=",
    "empty, then more": "Image=,Mode=MultiModel",
    "hash": "Image=x,Environment={A=1,B=two words,C=}",
    "hash with quotes": "Environment={A='1,2',B=\"x}y\",C=it's}",
    "single quotes": "Image='a,b=c'",
    "double quotes": 'Image="a,b={c}"',
    "escaped quotes": r"Image='it\'s',ModelDataUrl=" + '"say \\"hi\\""',
    "escaped backslash": r"Image='a\\b'",
    "escaped comma": r"Image=a\,b,Mode=SingleModel",
    "plain backslash": r"Image=C:\dir",
    "url": "Image=x,ModelDataUrl=s3://bucket/model.tar.gz",
    "nested hash": "ImageConfig={RepositoryAccessMode=Vpc,RepositoryAuthConfig={RepositoryCredentialsProviderArn=a}}",
    "deep": "ModelDataSource={S3DataSource={S3Uri=s3://b/,S3DataType=S3Prefix,CompressionType=None,"
    "ModelAccessConfig={AcceptEula=true}}}",
    "false": "ModelDataSource={S3DataSource={S3Uri=s,S3DataType=S3Prefix,CompressionType=None,"
    "ModelAccessConfig={AcceptEula=False}}}",
    "list of hashes": "AdditionalModelDataSources=[{ChannelName=a,S3DataSource={S3Uri=s,S3DataType=S3Object,"
    "CompressionType=Gzip}},{ChannelName=b,S3DataSource={S3Uri=t,S3DataType=S3Object,CompressionType=None}}]",
    "spaced brackets": "AdditionalModelDataSources=[ ],Environment={ A = 1 , B = 2 }",
    "lone hash for a list": "AdditionalModelDataSources={ChannelName=a,S3DataSource={S3Uri=s,S3DataType=S3Object,"
    "CompressionType=Gzip}}",
    "file": "Image@=file://{folder}/image.txt",
    "file in a hash": "Image=x,Environment={A@=file://{folder}/image.txt,B=file://kept}",
    "at sign and no file": "Image@=x",
    "not ASCII": "Image=größe,ModelDataUrl=β",
    "keys with dots": "Environment={a.b/c:d_e-f#g=1}",
}

SHORTHAND_BAD = {
    "no equals": "Image",
    "empty": "",
    "two equals": "Image==,=",
    "repeated key": "Image=a,Image=b",
    "trailing comma": "Image=a,",
    "open quote": "Image='a",
    "open double quote": 'Image="a',
    "open quote later": "Image=a,'b",
    "open hash": "Environment={A=1",
    "open list": "AdditionalModelDataSources=[",
    "after a quote": "Image='a'b=c",
    "after a hash": "Environment={A=1}B",
    "hash without a value": "Environment={A}",
    "on the second line": "Image=a,\nMode==,\nx",
    "unknown key": "Imag=x",
    "list for a word": "Image=a,b",
    "word for a structure": "ImageConfig=x",
    "no boolean": "ModelDataSource={S3DataSource={S3Uri=s,S3DataType=S3Object,CompressionType=None,"
    "ModelAccessConfig={AcceptEula=maybe}}}",
    "missing member": "ImageConfig={}",
    "no such file": "Image@=file:///nonexistent/image.txt",
    "leading comma": ",Image=a",
    "brackets": "Image=a]",
}


def _shorthand() -> Iterator[Case]:
    for kind, table in (("good", SHORTHAND_GOOD), ("bad", SHORTHAND_BAD)):
        for name, text in table.items():
            yield Case(
                f"shorthand {kind}: {name}",
                ["sagemaker", "create-model", "--model-name", "m", "--primary-container", text],
            )


def _lists() -> Iterator[Case]:
    tables = {
        "one": ["Key=a,Value=b"],
        "two": ["Key=a,Value=b", "Key=c,Value=d=e"],
        "none": [],
        "JSON list": ['[{"Key": "a", "Value": "b"}]'],
        "JSON objects": ['{"Key": "a", "Value": "b"}', '{"Key": "c", "Value": ""}'],
        "JSON list from a file": ["file://{folder}/tags.json"],
        "bad JSON": ['[{"Key": '],
        "bad JSON object": ['{"Key"}'],
        "JSON object, then shorthand": ['{"Key": "a", "Value": "b"}', "Key=c,Value=d"],
        "comma for a space": ["Key=a,Value=b,Key=c,Value=d"],
        "no value": ["Key=a"],
        "number": ['[{"Key": 1, "Value": "b"}]'],
        "no such file": ["file://{folder}/absent"],
        "binary as text": ["file://{folder}/binary"],
    }
    for name, words in tables.items():
        yield Case(f"tags: {name}", ["sagemaker", "add-tags", "--resource-arn", "arn", "--tags", *words])
    keys = {"some": ["a", "b"], "none": [], "JSON": ['["a", "b"]'], "bad JSON": ['["a"'], "numbers": ["1", "2"]}
    for name, words in keys.items():
        yield Case(f"tag keys: {name}", ["sagemaker", "delete-tags", "--resource-arn", "arn", "--tag-keys", *words])
    variants = {
        "numbers": "VariantName=v,ModelName=m,InitialInstanceCount=2,InitialVariantWeight=0.5,VolumeSizeInGB=10",
        "serverless": "VariantName=v,ModelName=m,ServerlessConfig={MemorySizeInMB=2048,MaxConcurrency=5}",
        "negative": "VariantName=v,ModelName=m,InitialInstanceCount=-1",
        "boolean": "VariantName=v,ModelName=m,EnableSSMAccess=TRUE",
        "no number": "VariantName=v,ModelName=m,InitialInstanceCount=two",
        "no fraction": "VariantName=v,ModelName=m,InitialVariantWeight=x",
        "not a number": "VariantName=v,ModelName=m,InitialVariantWeight=nan",
        "infinite": "VariantName=v,ModelName=m,InitialVariantWeight=-inf",
    }
    base = ["sagemaker", "create-endpoint-config", "--endpoint-config-name", "c", "--production-variants"]
    for name, word in variants.items():
        yield Case(f"variants: {name}", [*base, word])
    base = ["sagemaker", "create-transform-job", *MINIMAL["create-transform-job"]]
    for name, words in {
        "integers": ["--max-concurrent-transforms", "4", "--max-payload-in-mb", "0"],
        "no integer": ["--max-payload-in-mb", "x"],
        "negative": ["--max-payload-in-mb", "-1"],
        "map": ["--environment", "A=1,B=two"],
        "map with a list": ["--environment", "A=1,2"],
        "map as JSON": ["--environment", '{"A": "1"}'],
        "bad JSON": ["--environment", '{"A": 1'],
        "enum": ["--batch-strategy", "NoSuch"],
        "structure": ["--data-processing", "InputFilter=$[1:],JoinSource=Input"],
        "word for a structure": ["--data-processing", "Input"],
    }.items():
        yield Case(f"transform: {name}", [*base, *words])
    base = ["sagemaker", "create-inference-component", *MINIMAL["create-inference-component"][:4]]
    for name, words in {
        "a fraction": [
            "ModelName=m,ComputeResourceRequirements={MinMemoryRequiredInMb=128,NumberOfCpuCoresRequired=0.5}"
        ],
        "an adapter": ["BaseInferenceComponentName=b,Container={ArtifactUrl=s3://b/a.tar.gz}"],
        "a container": [
            "Container={Image=i,Environment={A=1,B=2}},StartupParameters={ContainerStartupHealthCheckTimeoutInSeconds=60}"
        ],
        "nothing required": ["ModelName=m,ComputeResourceRequirements={NumberOfCpuCoresRequired=1}"],
        "JSON": ['{"ModelName": "m", "DataCacheConfig": {"EnableCaching": true}}'],
        "and none": [],
    }.items():
        yield Case(f"component: {name}", [*base, "--specification", *words])
    for name, words in {
        "on": ["--enable-network-isolation"],
        "off": ["--no-enable-network-isolation"],
        "both": ["--enable-network-isolation", "--no-enable-network-isolation"],
        "with a value": ["--enable-network-isolation", "true"],
        "shortened": ["--enable-net"],
        "ambiguous": ["--e"],
        "vpc": ["--vpc-config", "SecurityGroupIds=sg-1,sg-2,Subnets=subnet-1"],
        "vpc with lists": ["--vpc-config", "SecurityGroupIds=[sg-1],Subnets=[subnet-1,subnet-2]"],
        "containers": ["--containers", "Image=a,ContainerHostname=one", "Image=b,Environment={K=v}"],
        "containers in brackets": ["--containers", '[{"Image": "a"}]'],
        "containers in shorthand brackets": ["--containers", "[{Image=a}]"],
        "direct": ["--inference-execution-config", "Mode=Direct"],
        "twice": ["--execution-role-arn", "a", "--execution-role-arn", "b"],
        "empty word": ["--execution-role-arn", ""],
        "role from a file": ["--execution-role-arn", "file://{folder}/image.txt"],
        "role from bytes": ["--execution-role-arn", "fileb://{folder}/image.txt"],
        "with equals": ["--execution-role-arn=" + ROLE],
        "without a value": ["--execution-role-arn"],
        "dashes": ["--execution-role-arn", "--tags"],
        "stray word": ["stray"],
        "two strays": ["stray", "other"],
    }.items():
        yield Case(f"model: {name}", ["sagemaker", "create-model", "--model-name", "m", *words])


def _each_operation() -> Iterator[Case]:
    for name in OPERATIONS:
        operation = shapes.operation("sagemaker", name)
        minimal = MINIMAL[name]
        whole = json.dumps(sample_input(operation))
        yield Case(f"{name}: minimal", ["sagemaker", name, *minimal])
        yield Case(f"{name}: nothing", ["sagemaker", name])
        yield Case(f"{name}: unknown option", ["sagemaker", name, *minimal, "--no-such", "x"])
        yield Case(f"{name}: skeleton", ["sagemaker", name, "--generate-cli-skeleton"])
        yield Case(f"{name}: output skeleton", ["sagemaker", name, *minimal, "--generate-cli-skeleton", "output"])
        yield Case(f"{name}: output skeleton, nothing given", ["sagemaker", name, "--generate-cli-skeleton", "output"])
        if operation.paginator is None:
            yield Case(f"{name}: whole document", ["sagemaker", name, "--cli-input-json", whole])
        refusal = {operation.name: [(400, {"__type": "ns#ValidationException", "message": "1 validation error"})]}
        yield Case(f"{name}: refused", ["sagemaker", name, *minimal], answers=refusal)


def _documents() -> Iterator[Case]:
    for name, words in {
        "wins over nothing": ["--cli-input-json", '{"ModelName": "m"}'],
        "loses to options": ["--cli-input-json", '{"ModelName": "m", "ExecutionRoleArn": "a"}', "--model-name", "n"],
        "after options": ["--cli-input-json", '{"Tags": [], "ModelName": "m"}', "--model-name", "n"],
        "from a file": ["--cli-input-json", "file://{folder}/model.json"],
        "bad": ["--cli-input-json", "{"],
        "unknown member": ["--cli-input-json", '{"ModelName": "m", "Nme": 1}'],
        "wrong types": ["--cli-input-json", '{"ModelName": 1, "Containers": {}, "EnableNetworkIsolation": "yes"}'],
        "null": ["--cli-input-json", '{"ModelName": null}'],
        "no such file": ["--cli-input-json", "file:///nonexistent"],
        "with a skeleton": ["--cli-input-json", "{}", "--generate-cli-skeleton"],
        "skeleton of what": ["--generate-cli-skeleton", "everything"],
    }.items():
        yield Case(f"document: {name}", ["sagemaker", "create-model", *words])


def output() -> Iterator[Case]:
    queries = {
        "describe-model": ("ModelName", "PrimaryContainer", "VpcConfig.Subnets", "[ModelName,EnableNetworkIsolation]"),
        "describe-endpoint": (
            "ProductionVariants[].VariantName",
            "ProductionVariants[*].{Name:VariantName,Weight:CurrentWeight}",
            "ProductionVariants[*].[VariantName,CurrentWeight]",
            "NoSuch",
            "length(ProductionVariants)",
        ),
    }
    for name in ("describe-model", "describe-endpoint", "list-models", "list-endpoints", "list-tags", "delete-model"):
        for form in ("json", "text", "table"):
            line = ["sagemaker", name, *MINIMAL[name], "--output", form]
            yield Case(f"{form}: {name}", line)
            for query in queries.get(name, ()):
                yield Case(f"{form}: {name} {query}", [*line, "--query", query])
    yield Case(
        "table in colour",
        ["sagemaker", "describe-endpoint", "--endpoint-name", "e", "--output", "table", "--color", "on"],
    )
    yield Case("unknown form", ["sagemaker", "describe-model", "--model-name", "m", "--output", "xml"])
    yield Case("bad query", ["sagemaker", "describe-model", "--model-name", "m", "--query", "a["])
    yield Case("query of a wrong type", ["sagemaker", "describe-model", "--model-name", "m", "--query", "length(`1`)"])
    yield Case(
        "form from the environment",
        ["sagemaker", "describe-model", "--model-name", "m"],
        environment={"AWS_DEFAULT_OUTPUT": "text"},
    )


def pages() -> Iterator[Case]:
    answers: list[tuple[int, Any]] = [
        (200, {"EndpointConfigs": [{"EndpointConfigName": f"c{page}{n}"} for n in range(2)], "NextToken": f"t{page}"})
        for page in range(2)
    ]
    answers.append((200, {"EndpointConfigs": [{"EndpointConfigName": "last"}]}))
    token = "eyJOZXh0VG9rZW4iOiAidDAiLCAiYm90b190cnVuY2F0ZV9hbW91bnQiOiAxfQ=="
    for form in ("json", "text", "table"):
        for name, words in {
            "all": [],
            "first": ["--no-paginate"],
            "one item": ["--max-items", "1"],
            "three items": ["--max-items", "3"],
            "four items": ["--max-items", "4", "--page-size", "2"],
            "query": ["--query", "EndpointConfigs[].EndpointConfigName"],
            "from a token": ["--starting-token", token],
            "from a service's token": ["--starting-token", "t0"],
        }.items():
            line = ["sagemaker", "list-endpoint-configs", *words, "--output", form]
            yield Case(f"pages, {form}: {name}", line, answers={"ListEndpointConfigs": answers})
    for name, words in {
        "by hand": ["--next-token", "t"],
        "limit by hand": ["--max-results", "5"],
        "by hand and not": ["--max-results", "5", "--max-items", "1"],
        "none and some": ["--no-paginate", "--max-items", "1"],
        "no number": ["--max-items", "x"],
        "no size": ["--page-size", "x"],
        "zero": ["--max-items", "0"],
        "time": ["--creation-time-after", "2024-11-22T18:00:00Z"],
        "epoch": ["--creation-time-before", "1732300000"],
        "epoch with a fraction": ["--creation-time-before", "1.5"],
        "no time": ["--creation-time-before", "yesterday-ish"],
        "sorted": ["--sort-by", "Name", "--sort-order", "Ascending", "--name-contains", "c"],
    }.items():
        yield Case(f"pages: {name}", ["sagemaker", "list-endpoint-configs", *words])


def _globals() -> Iterator[Case]:
    line = ["sagemaker", "describe-model", "--model-name", "m"]
    bare: dict[str, str | None] = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    yield Case("no operation", ["sagemaker"])
    yield Case("unknown operation", ["sagemaker", "create-modle"])
    yield Case("no region", line, environment={"AWS_DEFAULT_REGION": None})
    yield Case("region", [*line, "--region", "eu-central-1"])
    yield Case("no credentials", line, environment=bare)
    yield Case("not signed", [*line, "--no-sign-request"], environment=bare)
    yield Case("no such profile", [*line, "--profile", "nobody"])
    yield Case("profile", [*line, "--profile", "other"])
    yield Case("URL without a scheme", [*line, "--endpoint-url", "localhost:1"])
    yield Case("empty URL", [*line, "--endpoint-url", ""])
    yield Case("no region's name", [*line, "--region", "bogus region"])
    yield Case("other token", line, environment={"AWS_SECURITY_TOKEN": "token"})
    unchecked = ["sagemaker", "add-tags", "--resource-arn", "", "--tags", "Kee=a", "--profile", "unchecked"]
    yield Case("unchecked", unchecked)
    yield Case("global option first", ["sagemaker", "--output", "text", *line[1:]])
    yield Case("global option between", ["sagemaker", "describe-model", "--output", "text", "--model-name", "m"])
    yield Case("time-outs", [*line, "--cli-read-timeout", "5", "--cli-connect-timeout", "0"])
    yield Case("no time-out", [*line, "--cli-read-timeout", "x"])
    refused: list[tuple[str, int, Any]] = [
        ("message in capitals", 400, {"__type": "AccessDeniedException", "Message": "not you"}),
        ("no message", 400, {"__type": "com.amazonaws#ResourceNotFound"}),
        ("colon", 400, {"__type": "ValidationException:http://x", "message": "β"}),
        ("nothing said", 400, {}),
        ("conflict", 409, {"__type": "ConflictException", "message": "again"}),
        ("server", 500, {"__type": "InternalFailure", "message": "oh"}),
        ("throttled", 400, {"__type": "ThrottlingException", "message": "slow"}),
    ]
    for name, status, answer in refused:
        yield Case(f"refused: {name}", line, answers={"DescribeModel": [(status, answer)]})
    yield Case("nobody there", [*line, "--endpoint-url", "http://127.0.0.1:9"])
    yield Case("an answer that is a list", line, answers={"DescribeModel": [(200, ["m"])]})
    yield Case("empty answer", line, answers={"DescribeModel": [(200, {})]})


def _waiters() -> Iterator[Case]:
    line = ["sagemaker", "wait", "endpoint-in-service", "--endpoint-name", "e"]
    gone = {"DescribeEndpoint": [(400, {"__type": "ValidationException", "message": "Could not find endpoint"})]}
    yield Case("wait: at once", line)
    yield Case("wait: failed", line, answers={"DescribeEndpoint": [(200, {"EndpointStatus": "Failed"})]})
    yield Case("wait: gone", line, answers=gone)
    yield Case("wait: deleted", ["sagemaker", "wait", "endpoint-deleted", "--endpoint-name", "e"], answers=gone)
    yield Case("wait: on nothing", ["sagemaker", "wait"])
    yield Case("wait: for nothing", ["sagemaker", "wait", "endpoint-in-service"])
    yield Case("wait: for what", ["sagemaker", "wait", "endpoint-in-servic", "--endpoint-name", "e"])
    yield Case("wait: too much", [*line, "--model-name", "m"])


def _invocations() -> Iterator[Case]:
    line = ["sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "e"]
    for name, words in {
        "body": ["--body", "1,2", "out"],
        "body from a file": ["--body", "file://{folder}/image.txt", "out"],
        "body from bytes": ["--body", "fileb://{folder}/binary", "out"],
        "headers": [
            *["--body", "{}", "--content-type", "application/json", "--accept", "text/csv", "--target-variant", "one"],
            *["--custom-attributes", "a=b", "--target-model", "m.tar.gz", "--inference-id", "i", "out"],
        ],
        "outfile first": ["out", "--body", "x"],
        "no outfile": ["--body", "x"],
        "no body": ["out"],
        "two outfiles": ["--body", "x", "out", "other"],
        "document": ["--cli-input-json", "{}", "out"],
        "outfile in no folder": ["--body", "x", "no/such/folder"],
        "text": ["--body", "x", "out", "--output", "text"],
        "query": ["--body", "x", "out", "--query", "InvokedProductionVariant"],
    }.items():
        yield Case(f"invoke: {name}", [*line, *words])
    yield Case("invoke: name with a slash", [*line[:3], "a/b c", "--body", "x", "out"])
    asynchronous = ["sagemaker-runtime", "invoke-endpoint-async", "--endpoint-name", "e", "--input-location"]
    for name, words in {
        "": ["s3://b/i", "--request-ttl-seconds", "60"],
        " skeleton": ["s3://b/i", "--generate-cli-skeleton"],
        " with headers": [
            *["s3://b/i", "--content-type", "text/csv", "--accept", "text/plain", "--custom-attributes", "a=b"],
            *["--inference-id", "i", "--invocation-timeout-seconds", "5", "--filename", "f", "--output", "text"],
        ],
        " with a body": ["s3://b/i", "--body", "1,2"],
        " for how long": ["s3://b/i", "--request-ttl-seconds", "soon"],
        " to where": [],
        " with an outfile": ["s3://b/i", "out"],
        " in a document": ["s3://b/i", "--cli-input-json", '{"EndpointName": "f", "InferenceId": "i"}'],
    }.items():
        yield Case(f"invoke: asynchronous{name}", [*asynchronous, *words])


def cases() -> list[Case]:
    """Give the whole table."""
    makers = (_shorthand, _lists, _each_operation, _documents, output, pages, _globals, _waiters, _invocations)
    return [case for make in makers for case in make()]
