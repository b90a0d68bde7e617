"""Maps the folders to packages and builds the C core; all else is in pyproject.toml."""

import os
import sys
from glob import glob

from setuptools import Extension, find_packages, setup

folders = find_packages(include=["edgegan*", "trainer*", "export*"])
flags = ["/O2", "/std:c11"] if sys.platform == "win32" else ["-O3", "-std=c11", "-ffp-contract=off"]
core = Extension(
    "edgegan.core._core",
    sorted(glob("edgegan/core/*.c")),
    depends=glob("edgegan/core/*.h"),
    extra_compile_args=flags,
    libraries=[] if sys.platform == "win32" else ["m"],
    py_limited_api=True,
)
pure = os.environ.get("EDGEGAN_PUREPYTHON") == "1"  # an explicit choice; a missing compiler fails the build
if not pure and not core.sources:
    sys.exit("edgegan: the sources of the C core are missing; set EDGEGAN_PUREPYTHON=1 to build without it")
setup(
    packages=[f if f.startswith("edgegan") else f"edgegan.{f}" for f in folders],
    package_dir={"edgegan.trainer": "trainer", "edgegan.export": "export"},
    ext_modules=[] if pure else [core],
    options={} if pure else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
