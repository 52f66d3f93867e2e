"""Writes aws_2.json: what version 2 of the aws CLI does. It is in no package index, so the tests cannot install it.

    python -m tests.cli.record_aws_2 PYTHON [FOLDER]

PYTHON is one that has it, or that has it with FOLDER on its path: Debian's packages, unpacked, will do.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.cli import aws_2_cases, aws_cases
from tests.cli.aws_runs import MODELS, furnished, run_all

RECORD = Path(__file__).with_name("aws_2.json")


def plain_models(folder: Path) -> Path:
    """Unpack the models of the installed botocore, which the older ones of version 2 cannot."""
    for service in ("sagemaker", "sagemaker-runtime"):
        shutil.copytree(Path(MODELS) / service, folder / service)
    for packed in folder.rglob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return folder


def main(python: str, path: str = "") -> None:
    """Run both tables and write the record."""
    script = "import awscli; print(awscli.__version__)"
    version = subprocess.run(
        [python, "-c", script], check=True, capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    with tempfile.TemporaryDirectory() as name:
        folder = furnished(Path(name))
        more = {"PYTHONPATH": path, "AWS_DATA_PATH": str(plain_models(folder / "models")), "AWS_PAGER": ""}
        tables = [*aws_cases.cases(), *aws_2_cases.cases()]
        found = run_all("aws_2", tables, folder, python, more)
        text = json.dumps(
            {
                "version": f"aws-cli/{version.stdout.strip()}",
                "codes": {case.name: found[case.name].code for case in aws_cases.cases()},
                "outcomes": {case.name: asdict(found[case.name]) for case in aws_2_cases.cases()},
            },
            indent=1,
            ensure_ascii=False,
            default=lambda body: body.decode("latin-1"),
        )
        RECORD.write_text(text.replace(name, "{folder}") + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
