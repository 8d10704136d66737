"""PostgreSQL for the tests: found or installed, then run as an unprivileged user in a temporary folder."""

import os
import pwd
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from servers.common import Missing, Server, apt_install, output_of

OLDEST_MAJOR = 14
# The tests also make standbys and promote them.
TOOLS = ("initdb", "postgres", "pg_ctl", "pg_basebackup", "psql")
# Keeps Debian's package from creating and starting a cluster of its own: ours is temporary.
NO_CLUSTER = """
        mkdir -p /etc/postgresql-common/createcluster.d
        no_cluster=/etc/postgresql-common/createcluster.d/orphan-sweeper-tests.conf
        echo 'create_main_cluster = false' > $no_cluster
        trap 'rm -f $no_cluster' EXIT
"""
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_connections = 300
max_prepared_transactions = 20
wal_level = replica
max_wal_senders = 10
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
"""


def find():
    """The folder of the server's programs, installed first where there is none."""
    folder = installed()
    if folder is None:
        what = f"PostgreSQL {OLDEST_MAJOR} or newer"
        apt_install("postgresql", what, NO_CLUSTER)
        folder = installed()
        if folder is None:
            raise Missing(f"{what} is missing: this system's package `postgresql` is older.\n"
                          f"  Put the programs {', '.join(TOOLS)} of a newer one on the PATH.")
    return folder


def installed():
    """The folder of a server that is new enough and complete: of the one on the PATH, else of the newest that Debian packages."""
    debian = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    candidates = sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        candidates.insert(0, Path(on_path).resolve().parent)
    for folder in candidates:
        if major(folder) >= OLDEST_MAJOR and all(os.access(folder / tool, os.X_OK) for tool in TOOLS):
            return folder
    return None


def version(folder):
    """What the server says that it is."""
    return output_of(str(folder / "postgres"), "--version").strip()


def major(folder):
    """The server's major version; 0 where it cannot be told."""
    found = re.search(r"\(PostgreSQL\) (\d+)", version(folder))
    return int(found[1]) if found else 0


def unprivileged():
    """The user that runs the server when we are root, which PostgreSQL refuses; None when we are not."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Missing("there is neither a user `postgres` nor `nobody` to run PostgreSQL as.\n  Make one with: useradd --system postgres")


def run_as(user):
    """The words before a command that make it run as `user`; none when that is ourselves."""
    if user is None:
        return []
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


class Postgres(Server):
    """One PostgreSQL server; the superuser `postgres` with a random password, over TCP with SCRAM."""

    def __init__(self, folder, home, log, user):
        super().__init__("PostgreSQL", log)
        self.folder = folder
        self.home = home
        self.user = user
        self.password = secrets.token_hex(16)
        self.environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LC_ALL": "C", "TZ": "UTC"}

    def launch(self):
        """Creates the cluster and starts it."""
        data = self.home / "data"
        password_file = self.home / "password"
        self.home.mkdir(mode=0o700)
        password_file.write_text(self.password)
        password_file.chmod(0o600)
        if self.user is not None:
            os.chown(self.home, self.user.pw_uid, self.user.pw_gid)
            os.chown(password_file, self.user.pw_uid, self.user.pw_gid)
        initdb = subprocess.run(
            [*run_as(self.user), str(self.folder / "initdb"), "--pgdata", str(data), "--username", "postgres",
             "--pwfile", str(password_file), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.home, env=self.environment,
        )
        password_file.unlink()
        if initdb.returncode != 0:
            raise Missing(f"initdb failed with exit code {initdb.returncode}:\n{initdb.stdout}")
        with open(data / "postgresql.conf", "a") as configuration:
            configuration.write(SETTINGS)
        self.start(
            lambda port: [str(self.folder / "postgres"), "-D", str(data), "-p", str(port)],
            self.answers, run_as=run_as(self.user), cwd=self.home, env=self.environment,
        )

    def answers(self, port):
        """Whether our superuser can log in, which also shows that it is our server."""
        login = {**self.environment, "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "5"}
        psql = [str(self.folder / "psql"), "--no-psqlrc", "--host", "127.0.0.1", "--port", str(port),
                "--username", "postgres", "--dbname", "postgres", "--command", "SELECT 1"]
        return subprocess.run(psql, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", env=login).returncode == 0

    def url(self):
        """Where the tests find it."""
        return f"postgres://postgres:{self.password}@127.0.0.1:{self.port}/postgres"
