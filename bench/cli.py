"""Wall time of `clary sagemaker create-model` beside `aws sagemaker create-model`, as whole processes.

Both send to the same server, which answers at once; runs alternate, so that a machine that changes its speed changes
it for both, and the ratio is of medians in one run. `list-models`, which goes the long way through botocore, is beside
it.

    .venv/bin/python bench/cli.py [--runs 15]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BIN = Path(sys.executable).parent
COMMANDS = {
    "create-model": [
        *["create-model", "--model-name", "tide", "--execution-role-arn", "arn:aws:iam::123456789012:role/tide"],
        *["--primary-container", "Image=tide:1,ModelDataUrl=s3://tide/model.tar.gz,Environment={A=1,B=2}"],
        *["--tags", "Key=team,Value=tide", "Key=stage,Value=test"],
    ],
    "list-models": ["list-models", "--max-items", "1"],
}
ANSWERS = {
    "CreateModel": {"ModelArn": "arn:aws:sagemaker:eu-west-1:123456789012:model/tide"},
    "ListModels": {"Models": [{"ModelName": "tide", "ModelArn": "arn", "CreationTime": 1.0}]},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(ANSWERS[self.headers["X-Amz-Target"].partition(".")[2]]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def timed(program: str, arguments: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(
        [str(BIN / program), "sagemaker", *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def measure(runs: int, environment: dict[str, str]) -> None:
    for name, arguments in COMMANDS.items():
        taken: dict[str, list[float]] = {"aws": [], "clary": []}
        for run in range(runs + 1):
            for program, times in taken.items():
                seconds = timed(program, arguments, environment)
                if run:  # the first warms the disk's cache, and Clary's
                    times.append(seconds)
        for program, times in taken.items():
            low, middle, high = min(times), statistics.median(times), max(times)
            print(
                f"{name:14} {program:6} median {middle:6.3f} s   min {low:6.3f}   max {high:6.3f}   runs {len(times)}"
            )
        ratio = statistics.median(taken["clary"]) / statistics.median(taken["aws"])
        print(f"{name:14} clary/aws {ratio:.2f}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as home:
        measure(
            runs,
            {
                "PATH": os.environ["PATH"],
                "HOME": home,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
                "AWS_ACCESS_KEY_ID": "AKIATEST",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_DEFAULT_REGION": "eu-west-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
        )
    server.shutdown()


if __name__ == "__main__":
    main()
