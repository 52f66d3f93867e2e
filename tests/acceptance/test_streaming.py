"""Answers that come in pieces, through a whole Clary, read by the clients that people have."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.acceptance.conftest import BIN, Clary, model_archive
from tests.wire.test_bearer import token

pytestmark = pytest.mark.acceptance

SERVE = textwrap.dedent('''\
    #!/usr/bin/env python3
    """Answers word by word, as server-sent events: the next one only once the file of its number is there."""
    import http.server, json, os, time

    FOLDER = os.environ["FOLDER"]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(3):
                while not os.path.exists(os.path.join(FOLDER, str(number))):
                    time.sleep(0.005)
                choice = {"index": 0, "delta": {"content": "word%d " % number}}
                event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
                self.piece(b"data: " + json.dumps(event).encode() + b"\\n\\n")
            self.piece(b"data: [DONE]\\n\\n")
            self.piece(b"")

        def piece(self, data):
            self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(data), data))
            self.wfile.flush()

        def log_message(self, *args):
            pass

    address = ("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()
''')


class Words:
    """Lets the model say its next word."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def allow(self, *numbers: int) -> None:
        for number in numbers:
            (self.folder / str(number)).touch()

    def reset(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()


@pytest.fixture
def words(clary: Clary, tmp_path: Path) -> Any:
    clary.create("words", archive=model_archive("words", serve=SERVE), FOLDER=str(tmp_path))
    clary.wait("words")
    yield Words(tmp_path)
    clary.delete("words")


def test_boto3_and_the_openai_client_have_each_word_before_the_next_is_said(clary: Clary, words: Words) -> None:
    words.allow(0)
    answer = clary.client("sagemaker-runtime").invoke_endpoint_with_response_stream(EndpointName="words", Body=b"{}")
    said = []
    for number, event in enumerate(answer["Body"]):
        said.append(event["PayloadPart"]["Bytes"])
        words.allow(number + 1)
    assert [f"word{number}".encode() in each for number, each in enumerate(said[:3])] == [True] * 3

    words.reset()
    words.allow(0)
    environment = clary.environment
    key = token(key=environment["AWS_ACCESS_KEY_ID"], secret=environment["AWS_SECRET_ACCESS_KEY"]).decode()
    heard = []
    with openai.OpenAI(base_url=f"{clary.url}/endpoints/words/openai/v1", api_key=key, max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hi"}]
        for number, part in enumerate(client.chat.completions.create(model="m", messages=messages, stream=True)):
            heard.append(part.choices[0].delta.content)
            words.allow(number + 1)
    assert heard == ["word0 ", "word1 ", "word2 "]


def test_the_command_line_writes_the_stream_to_a_file(clary: Clary, words: Words, tmp_path: Path) -> None:
    words.allow(0, 1, 2)
    out = tmp_path / "answer"
    operation = ("sagemaker-runtime", "invoke-endpoint-with-response-stream", "--endpoint-name", "words")
    command = [str(BIN / "clary"), *operation, "--body", "{}", str(out)]
    done = subprocess.run(command, env=clary.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().count(b"data: ") == 4
    assert json.loads(done.stdout)["ContentType"] == "text/event-stream"
