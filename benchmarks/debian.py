"""Real pictures from packages of Debian or Ubuntu, fetched by apt-get or lying in a folder."""

import subprocess
from pathlib import Path


def unpack(packages: list[str], folder: Path, from_folder: Path | None = None) -> dict[str, Path]:
    """{package: the folder below `folder` that holds its files}. from_folder: where the .deb files are already."""
    if from_folder is None:
        subprocess.run(("apt-get", "download", *packages), cwd=folder, check=True)
    found = {}
    for package in packages:
        files = sorted((from_folder or folder).glob(f"{package}_*.deb"))
        if len(files) != 1:
            raise SystemExit(f"{from_folder or folder} has {len(files)} files {package}_*.deb; one is needed")
        found[package] = folder / package
        subprocess.run(("dpkg", "-x", files[0], found[package]), check=True)
    return found
