"""What both test servers need: messages, missing pieces, packages, free ports and processes.

Every process that is started here is stopped here by its id, also when the run is interrupted: servers and
tools are sessions of their own, and whatever they leave behind is adopted by this process and found in /proc.
"""

import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PORT_ATTEMPTS = 5
READY_WITHIN_S = 60
STOP_WITHIN_S = 15
LOG_TAIL_LINES = 40
SET_CHILD_SUBREAPER = 36  # prctl(2)


class Missing(Exception):
    """Something the tests cannot do without; the text says what it is and which command gets it."""


class Interrupted(BaseException):
    """A signal asked this process to end. Not an `Exception`, so that nothing retries over it."""

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


def say(text):
    """Tells the person at the terminal; standard output belongs to cargo and to `--servers`."""
    try:
        print(f"tests/run: {text}", file=sys.stderr, flush=True)
    except OSError:
        pass  # Nobody listens any more, as after Ctrl-C in `tests/run 2>&1 | tee`; tearing down matters more.


def tail(log):
    """The last lines of a server's log, for a message."""
    lines = Path(log).read_text(errors="replace").splitlines() if Path(log).exists() else []
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:]) or "    (the log is empty)"


def output_of(*command):
    """What a program prints, or an empty text if it cannot be run or fails."""
    try:
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/")
    except OSError:
        return ""
    return found.stdout if found.returncode == 0 else ""


# --- packages ---


def root_prefix():
    """The words before a command that needs root, or None if this user cannot become root without a password."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ["sudo", "-n"]
    return None


def apt_install(package, what, prepare=""):
    """Installs a Debian package after the shell lines `prepare`, or raises `Missing` with the command that does."""
    if not shutil.which("apt-get"):
        raise Missing(f"{what} is missing, and there is no apt-get here.\n  Install it (on Debian or Ubuntu: the package `{package}`).")
    by_hand = f"apt-get update && apt-get install -y --no-install-recommends {package}"
    prefix = root_prefix()
    if prefix is None:
        raise Missing(f"{what} is missing.\n  Get it with: sudo sh -c '{by_hand}'")
    say(f"{what} is missing: installing the package `{package}`")
    script = f"""
        {prepare}
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get install -q -y --no-install-recommends {package}
    """
    if run_to_end([*prefix, "sh", "-c", script], stdout=sys.stderr) != 0:
        raise Missing(f"{what} is missing and could not be installed.\n  Get it with: {shlex.join([*prefix, 'sh', '-c', by_hand])}")


# --- processes ---


def adopt_orphans():
    """Makes this process the parent of whatever its descendants leave behind, so that `stop_strays` finds it."""
    if ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        say("cannot adopt processes that tests leave behind; they may outlive this run")


def run_to_end(command, **options):
    """Runs a program in a session of its own and returns its exit code; interrupted, ends its whole group."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        code = process.wait()
    except BaseException:
        stop(process, signal.SIGTERM)
        raise
    return code if code >= 0 else 128 - code


def stop(process, how):
    """Asks a process and its group to end, waits, then kills the group."""
    if process.poll() is not None:
        return
    try:
        os.killpg(process.pid, how)
        process.wait(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        say(f"process {process.pid} did not end within {STOP_WITHIN_S} s: killing it")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except PermissionError:
        process.wait()  # An installation by way of sudo: not ours to end, and better not broken off.


def descendants(spared):
    """Ids and names of the processes below this one, without the spared ones and what is below them."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text(errors="replace").split(" (", 1)
        except OSError:
            continue  # It ended while we looked.
        name, rest = rest.rsplit(") ", 1)
        children.setdefault(int(rest.split()[1]), []).append((int(pid), name))
    found, parents = {}, [os.getpid()]
    while parents:
        for pid, name in children.get(parents.pop(), []):
            if pid not in spared:
                found[pid] = name
                parents.append(pid)
    return found


def stop_strays(spared=()):
    """Ends what the tests left running, by process id."""
    told, begun = {}, time.monotonic()
    while True:
        for pid in descendants(spared):
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass  # A child of a stray: ours to reap once its parent has gone.
        strays = descendants(spared)
        waited_s = time.monotonic() - begun
        if not strays or waited_s > 2 * STOP_WITHIN_S:
            break
        for pid, name in strays.items():
            how = signal.SIGKILL if waited_s > STOP_WITHIN_S else signal.SIGTERM
            if told.get(pid, (None, None))[1] == how:
                continue
            told[pid] = (name, how)
            try:
                os.kill(pid, how)
            except (ProcessLookupError, PermissionError):
                pass  # It has just ended, or sudo made it root's.
        time.sleep(0.05)
    if told:
        say("ended processes that were left running: " + ", ".join(f"{name} ({pid})" for pid, (name, _) in told.items()))


# --- servers ---


def is_free(port):
    """Whether nobody listens on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port():
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server process on a free loopback port, and its log."""

    def __init__(self, name, log):
        self.name = name
        self.log = log
        self.process = None
        self.port = None

    def start(self, command_for, is_ready, run_as=(), **options):
        """Starts `command_for(port)` and waits until `is_ready(port)`; another port is tried where one was snatched away."""
        # SIGINT is the fast shutdown of PostgreSQL, and MinIO takes it too; the kernel sends it if we are killed.
        # One `setpriv` does both: a change of user would forget the signal.
        prefix = [*(run_as or ["setpriv"]), "--pdeathsig", "INT"]
        for _ in range(PORT_ATTEMPTS):
            self.port = free_port()
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    [*prefix, *command_for(self.port)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options,
                )
            deadline = time.monotonic() + READY_WITHIN_S
            while self.is_running() and time.monotonic() < deadline:
                if is_ready(self.port) and self.is_running():
                    return
                time.sleep(0.1)
            if self.is_running():
                raise Missing(f"{self.name} did not answer within {READY_WITHIN_S} s. The end of its log:\n{tail(self.log)}")
            if is_free(self.port):
                break
            say(f"port {self.port} was taken before {self.name} had it: trying another")
        raise Missing(f"{self.name} did not start (exit code {self.process.returncode}). The end of its log:\n{tail(self.log)}")

    def is_running(self):
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """Ends it and waits until it has gone."""
        if self.process is not None:
            stop(self.process, signal.SIGINT)
