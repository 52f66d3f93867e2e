"""Where a model's files are, and what to say when they are not where the contract wants them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MOST_LISTED = 40
DEEPEST_LISTED = 4


class LayoutError(Exception):
    """The model's files do not form a model; the text says what was expected and what was found."""


@dataclass(frozen=True)
class Layout:
    """The folders of one model. `program` is the script's file name; `named` tells that somebody chose it."""

    model_dir: Path
    program: str = "inference.py"
    named: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Layout:
        """Find the model as AWS's toolkits do; `SM_MODEL_DIR` overrides the container's `/opt/ml/model`."""
        base = environment.get("SAGEMAKER_BASE_DIR") or "/opt/ml"
        model_dir = Path(environment.get("SM_MODEL_DIR") or f"{base}/model")
        program = environment.get("SAGEMAKER_PROGRAM") or ""
        if program and not program.endswith(".py"):
            program += ".py"  # the toolkit takes a module's name too
        return cls(model_dir, program or "inference.py", named=bool(program))

    @property
    def code_dir(self) -> Path:
        return self.model_dir / "code"

    @property
    def module(self) -> str:
        return self.program[: -len(".py")]

    @property
    def has_script(self) -> bool:
        return (self.code_dir / self.program).is_file() or (self.code_dir / self.module / "__init__.py").is_file()

    def missing_script(self) -> LayoutError:
        lines = [f"The model has no script: code/{self.program} is not in its files."]
        if self.named:
            lines.append(f"SAGEMAKER_PROGRAM names it: {self.program}.")
        return self._explain(lines)

    def missing_function(self, function: str) -> LayoutError:
        return self._explain(
            [f"The script code/{self.program} does not define {function}, and there is no default to take its place."]
        )

    def missing_model(self, what: str) -> LayoutError:
        return self._explain([f"The model's files hold no {what}."])

    def _explain(self, lines: list[str]) -> LayoutError:
        expected = [
            "expected:",
            f"  {self.model_dir}/",
            "    <the model's files>",
            f"    code/{self.program}    defines model_fn(model_dir)",
            "    code/requirements.txt    optional",
            "found:",
            f"  {self.model_dir}/",
        ]
        return LayoutError("\n".join([*lines, *expected, *(f"    {line}" for line in self._found()), *self._hint()]))

    def _found(self) -> list[str]:
        names: list[str] = []
        for folder, folders, files in os.walk(self.model_dir):
            folders.sort()
            relative = Path(folder).relative_to(self.model_dir)
            if len(relative.parts) >= DEEPEST_LISTED:
                folders.clear()
            names += [str(relative / name) for name in sorted(files)]
            if len(names) > MOST_LISTED:
                return [*names[:MOST_LISTED], "..."]
        return names or ["(nothing)"]

    def _hint(self) -> list[str]:
        """Point at the commonest mistakes in an archive: one folder too many, or the script beside `code/`."""
        if self.has_script or not self.model_dir.is_dir():
            return []
        for tree in sorted(path for path in self.model_dir.iterdir() if path.is_dir()):
            if (tree / "code" / self.program).is_file():
                return [
                    f"The archive has an extra top folder, {tree.name}/. Pack what is in it, not the folder itself:",
                    f"  tar -C {tree.name} -czf model.tar.gz .",
                ]
        if (self.model_dir / self.program).is_file():
            return [f"{self.program} lies beside the model; it belongs in code/."]
        return []
