#!/usr/bin/env python3
"""Sends the running API what its own description allows, and what it forbids; finds answers that it does not describe.

usage: tests/fuzz.py ADDRESS APPROVE_TOKEN DELETE_TOKEN [REPORT_ONLY_SEED]

`schemathesis` is fetched from PyPI once, into the cache that tests/run has too. Its exit code is ours: 0 where no answer is
a 5xx, none is undocumented, each has the described type and shape, and no route is open without a token.
"""

import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # No __pycache__ in the work tree.

from servers import tools  # noqa: E402
from servers.common import Missing, say  # noqa: E402

SCHEMATHESIS = "schemathesis==4.32.5"
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,unsupported_method,ignored_auth")
EXAMPLES = "5"
MOST_SECONDS = 50


def run(program, address, token, seed, routes):
    """One pass over the routes that this token is for."""
    command = [program, "run", f"http://{address}/api/v1/openapi.json", "--checks", CHECKS,
               "--header", f"Authorization: Bearer {token}", "--phases", "examples,coverage,fuzzing",
               "--max-examples", EXAMPLES, "--seed", seed, "--workers", "1", "--no-shrink", "--warnings", "off", *routes]
    # It looks for settings of its own in the folder that it runs in.
    with tempfile.TemporaryDirectory() as folder:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("SCHEMATHESIS")}
        return subprocess.run(command, stdin=subprocess.DEVNULL, cwd=folder, env=plain, timeout=4 * MOST_SECONDS).returncode


def main(words):
    if len(words) not in (3, 4):
        say(__doc__.strip())
        return 2
    address, approve, delete = words[:3]
    seed = words[3] if len(words) == 4 else "20261126"
    try:
        program = str(tools.python_tools("schemathesis", [SCHEMATHESIS]) / "schemathesis")
    except Missing as missing:
        say(missing)
        return 1
    deletes = "/jobs/synthetic/"
    codes = [run(program, address, approve, seed, ["--exclude-path-regex", deletes]),
             run(program, address, delete, seed, ["--include-path-regex", deletes])]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
