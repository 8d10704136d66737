"""Programs that a check needs and that no server is: from PyPI, or out of a Debian package, kept in the cache."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from servers.common import Missing, apt_install, root_prefix, run_to_end, say


def cache():
    """The folder that outlives a run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "orphan-sweeper"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def made_once(target):
    """Gives a folder to fill beside `target`, under a lock, and puts it there whole; None where `target` is there already."""
    with open(target.with_name(target.name + ".lock"), "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        building = target.with_name(target.name + ".building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            yield building
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def python_tools(name, requirements):
    """The `bin` of a folder in which these pinned PyPI packages are installed."""
    key = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:16]
    target = cache() / f"python-{name}-{key}"
    with made_once(target) as building:
        if building is not None:
            say(f"fetching {', '.join(requirements)} from PyPI into {target}, once")
            packages = building / "packages"
            make_environment(building / "venv")
            pip = [building / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            if run_to_end([str(word) for word in [*pip, "--target", packages, *requirements]], stdout=sys.stderr) != 0:
                raise Missing(f"{', '.join(requirements)} could not be had from PyPI.\n"
                              f"  Get them with: python3 -m pip install --target {target / 'packages'} {' '.join(requirements)}")
            write_launchers(building, target)
    return target / "bin"


def make_environment(venv):
    """A Python with pip; Debian has the part that brings pip in a package of its own."""
    if run_to_end([sys.executable, "-m", "venv", str(venv)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) != 0:
        apt_install("python3-venv", "Python's venv")
        shutil.rmtree(venv, ignore_errors=True)
        if run_to_end([sys.executable, "-m", "venv", str(venv)], stdout=sys.stderr) != 0:
            raise Missing("Python's venv cannot be made.\n  Get it with: apt-get install -y python3-venv")


def write_launchers(building, target):
    """A folder that was renamed has no working scripts of pip's: these go by where it will be."""
    binaries = building / "bin"
    binaries.mkdir()
    python = f'PYTHONPATH="{target / "packages"}" exec "{sys.executable}"'
    scripts = {"python": f'{python} "$@"'}
    for script in (building / "packages" / "bin").glob("*"):
        scripts[script.name] = f'{python} "{target / "packages" / "bin" / script.name}" "$@"'
    for name, command in scripts.items():
        launcher = binaries / name
        launcher.write_text(f"#!/bin/sh\n{command}\n")
        launcher.chmod(0o755)


def unpacked(package, program):
    """A program out of a Debian package, which is unpacked and not installed: nothing of it is started."""
    target = cache() / f"debian-{package}"
    with made_once(target) as building:
        if building is not None:
            say(f"fetching the Debian package `{package}` into {target}, once")
            download(package, building)
            (archive,) = building.glob("*.deb")
            if subprocess.run(["dpkg-deb", "--extract", archive, building], stdin=subprocess.DEVNULL).returncode != 0:
                raise Missing(f"{archive} cannot be unpacked.")
            archive.unlink()
    found = target / program
    if not os.access(found, os.X_OK):
        raise Missing(f"the Debian package `{package}` has no {program}.\n  Put {found.name} on the PATH.")
    return found


def download(package, folder):
    """Downloads a package, after an update of the lists where it is not in them."""
    by_hand = f"apt-get update && apt-get download {package}"
    fetch = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
    if not shutil.which("apt-get"):
        raise Missing(f"the package `{package}` is needed, and there is no apt-get here.\n  Put its programs on the PATH.")
    if run_to_end(fetch, cwd=folder, stdout=sys.stderr) == 0:
        return
    prefix = root_prefix()
    if prefix is None or run_to_end([*prefix, "apt-get", "-q", "update"], stdout=sys.stderr) != 0 \
            or run_to_end(fetch, cwd=folder, stdout=sys.stderr) != 0:
        raise Missing(f"the package `{package}` could not be downloaded.\n  Get it with: sudo sh -c '{by_hand}'")
