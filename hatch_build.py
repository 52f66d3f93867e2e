"""Compiles the gateway's short way when Clary is built, where there is a C compiler; without one Clary is whole all the
same, and slower at invocations. `CLARY_COMPILE=0` leaves it out, `CLARY_COMPILE=1` fails where it cannot be compiled.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from shutil import copyfile
from sysconfig import get_config_var
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "src/clary/gateway/shortcut"
MODULE = "clary.gateway.shortcut.way"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling for wheels and for editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wish = os.environ.get("CLARY_COMPILE", "auto")
        if self.target_name != "wheel":
            return
        folder = Path(self.root) / PACKAGE
        built = folder / f"way{get_config_var('EXT_SUFFIX')}"
        built.unlink(missing_ok=True)  # what an earlier build has left would be installed, or used, all the same
        if wish == "0":
            return
        try:
            compile_extension(folder / "way.pyx", built)
        except Exception as error:  # whatever keeps it from being compiled, Clary runs without
            if wish == "1":
                raise
            self.app.display_warning(f"The gateway's short way is not compiled ({type(error).__name__}: {error}).")
            return
        if version != "editable":
            build_data["force_include"][str(built)] = f"clary/gateway/shortcut/{built.name}"
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def compile_extension(source: Path, built: Path) -> None:
    """Compile a Cython module, which then knows the hash of its source: an old one is told from it (`compiled.py`)."""
    from Cython.Build import cythonize
    from setuptools import Extension
    from setuptools.command.build_ext import build_ext
    from setuptools.dist import Distribution

    files = sorted((*source.parent.glob("*.pyx"), *source.parent.glob("*.pxi")))
    stamp = [("CLARY_SOURCE", f'"{sha256(b"".join(file.read_bytes() for file in files)).hexdigest()}"')]
    with TemporaryDirectory() as name:
        extension = Extension(MODULE, [str(source)], define_macros=stamp, extra_compile_args=["-O2"])
        modules = cythonize([extension], build_dir=name, quiet=True, language_level=3)
        command = build_ext(Distribution({"name": "clary", "ext_modules": modules}))
        command.build_lib, command.build_temp = name, name
        command.ensure_finalized()
        command.run()
        copyfile(command.get_ext_fullpath(MODULE), built)
