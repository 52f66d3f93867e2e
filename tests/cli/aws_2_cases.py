"""Command lines for what version 1 of the aws CLI lacks: YAML, base64, codes for what is wrong around the command.

What version 2 made of them, and its codes for the command lines of `aws_cases`, is in aws_2.json.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.cli.aws_cases import MINIMAL, Case, output, pages

_DESCRIBE = ["sagemaker", "describe-model", "--model-name", "m"]


def _yaml() -> Iterator[Case]:
    for case in (*output(), *pages()):
        if "json" in case.arguments:
            for form in ("yaml", "yaml-stream"):
                words = [form if word == "json" else word for word in case.arguments]
                yield Case(case.name.replace("json", form), words, case.answers, case.environment)
    for name in ("create-model", "create-transform-job", "add-tags", "delete-tags"):
        yield Case(f"{name}: skeleton in YAML", ["sagemaker", name, "--generate-cli-skeleton", "yaml-input"])


def _documents() -> Iterator[Case]:
    for name, words in {
        "block": ["ModelName: m\nTags:\n- Key: a\n  Value: b\n"],
        "JSON": ['{"ModelName": "m"}'],
        "options win": ["ModelName: m\nExecutionRoleArn: x", "--model-name", "n"],
        "anchors": ["ModelName: &a m\nExecutionRoleArn: *a"],
        "lines": ["ModelName: |\n  a\n  b\n"],
        "of 1.2": ["{ModelName: off, Tags: [{Key: at, Value: 1:30}, {Key: no, Value: yes}], VpcConfig: null}"],
        "number": ["ModelName: 1"],
        "list": ["- a"],
        "word": ["hello"],
        "empty": [""],
        "unknown": ["ModelNme: m"],
        "a key twice": ["ModelName: a\nModelName: b\n"],
        "bad": ["a: ["],
        "a day": ["{ModelName: m, ExecutionRoleArn: 2024-01-01}"],
        "no such file": ["file:///nonexistent"],
        "two documents": ["{}", "--cli-input-json", "{}"],
        "and a skeleton": ["ModelName: m", "--generate-cli-skeleton"],
    }.items():
        yield Case(f"YAML: {name}", ["sagemaker", "create-model", "--cli-input-yaml", *words])


def _surroundings() -> Iterator[Case]:
    for name, (words, environment) in {
        "half a key pair": ([], {"AWS_SECRET_ACCESS_KEY": None}),
        "the other half": ([], {"AWS_ACCESS_KEY_ID": None}),
        "no such profile": ([], {"AWS_PROFILE": "nobody"}),
        "no config": ([], {"AWS_CONFIG_FILE": "/nonexistent"}),
        "no such form": ([], {"AWS_DEFAULT_OUTPUT": "xml"}),
        "no pager": (["--no-cli-pager"], {}),
        "no prompt": (["--no-cli-auto-prompt"], {}),
        "no such colour": (["--color", "x"], {}),
        "no query": (["--query", ""], {}),
        "https": (["--endpoint-url", "https://127.0.0.1:9"], {}),
    }.items():
        yield Case(f"around: {name}", [*_DESCRIBE, *words], environment=environment)


def _blobs() -> Iterator[Case]:
    line = ["sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "e", "--cli-binary-format", "base64"]
    for name, words in {
        "good": ["--body", "aGk=", "out"],
        "with a line's end": ["--body", "aG k=\n", "out"],
        "too short": ["--body", "a", "out"],
        "with a comma": ["--body", "1,2", "out"],
        "bytes": ["--body", "fileb://{folder}/binary", "out"],
        "YAML": ["--body", "aGk=", "out", "--output", "yaml"],
    }.items():
        yield Case(f"base64: {name}", [*line, *words])


def _words() -> Iterator[Case]:
    lists = ["sagemaker", "list-models"]
    for name, words in {
        "sizes in a document": ["--cli-input-json", '{"MaxResults": 5}'],
        "tokens in a document": ["--cli-input-json", '{"NextToken": "x"}'],
        "no token": ["--starting-token", "!!"],
        "a token of another kind": ["--starting-token", "eyJ4IjogMX0="],
        "pages of nothing": ["--page-size", "0"],
        "a day": ["--creation-time-after", "2024-01-01"],
        "a day in words": ["--creation-time-after", "1 Jan 2024"],
        "a zone": ["--creation-time-after", "2024-01-01T00:00:00+02:00"],
    }.items():
        yield Case(f"lists: {name}", [*lists, *words])
    for name, words in {
        "twice the operation": ["create-model", "create-model"],
        "an option's beginning": ["create-model", *MINIMAL["create-model"], "--execution-rol", "x"],
        "letters swapped": ["create-model", "--modle-name", "m"],
        "a dash": ["create-model", "--model-name", "-m"],
        "two dashes": ["create-model", "--model-name", "--", "m"],
        "nothing after equals": ["create-model", "--model-name="],
        "capitals": ["Create-Model"],
        "an underscore": ["create_model"],
        "a word too short": ["create-mode"],
        "bytes for text": ["create-model", "--model-name", "fileb://{folder}/binary"],
        "a URL": ["create-model", "--model-name", "http://127.0.0.1:9/"],
    }.items():
        yield Case(f"words: {name}", ["sagemaker", *words])


def cases() -> list[Case]:
    """Give the whole table."""
    makers = (_yaml, _documents, _surroundings, _blobs, _words)
    return [case for make in makers for case in make()]
