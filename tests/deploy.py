#!/usr/bin/env python3
"""What deploy/ holds, checked by the programs and the schemas that it is written for.

usage: tests/deploy.py

    Prometheus    promtool checks the rules and the configuration, runs the rules' unit tests, and parses every expression
                  of the Grafana dashboard
    systemd       systemd-analyze verifies each unit, with a program in the place of ours, and scores its hardening
    Compose       the schema of the Compose specification
    Kubernetes    the schemas of the versions below; no unknown field; and what every container of ours must be

Its exit code is 1 where something is wrong. promtool is taken from the PATH, else from Debian's package `prometheus`, which is
unpacked into the cache and not installed; the two schema checkers come from PyPI into a folder of the cache.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True  # No __pycache__ in the work tree.

from servers.common import Missing, apt_install, say  # noqa: E402
from servers.tools import python_tools, unpacked  # noqa: E402

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
CHECKERS = ("check-jsonschema==0.39.0", "kubernetes-validate==1.37.0", "PyYAML==6.0.2")
KUBERNETES_VERSIONS = ("1.30", "1.37")
# What `systemd-analyze security` calls the exposure of a unit, in tenths: 100 is none of the settings, 0 is all of them.
MOST_EXPOSURE = 20
# A daemon that is down for an upgrade reads the unit again: what is in the place of ours only has to be executable.
PROGRAM = "/usr/local/bin/orphan-sweeper"


class Wrong(Exception):
    """Something in deploy/ is not right; the text says what."""


def run(*command, **options):
    """Runs a checker; its output is part of the message where it fails."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0:
        raise Wrong(f"{' '.join(str(word) for word in command)}\nexit code {done.returncode}\n{said}")
    return said


# --- Prometheus and Grafana ---


def check_prometheus(scratch):
    """The rules, their unit tests, the configuration, and every expression of the dashboard."""
    promtool = shutil.which("promtool") or unpacked("prometheus", "usr/bin/promtool")
    folder = DEPLOY / "prometheus"
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", folder / "alerts.yml")
    run(promtool, "test", "rules", folder / "alerts_test.yml", cwd=folder)
    run(promtool, "check", "config", folder / "prometheus.yml")
    tested = set(re.findall(r"alertname: (\w+)", (folder / "alerts_test.yml").read_text()))
    alerts = set(re.findall(r"alert: (\w+)", (folder / "alerts.yml").read_text()))
    if tested != alerts:
        raise Wrong(f"alerts without a unit test, or tests of none: {sorted(tested ^ alerts)}")
    expressions = sorted(dashboard_expressions())
    if len(expressions) < 10:
        raise Wrong(f"the dashboard has {len(expressions)} expressions only")
    rules = [{"record": f"dashboard:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    as_rules = scratch / "dashboard.yml"
    as_rules.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", "--lint=none", as_rules)
    say(f"prometheus: {len(alerts)} alerts, each tested, and {len(expressions)} expressions of the dashboard")


def dashboard_expressions():
    """Every expression of the dashboard, with a value in the place of Grafana's variables."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    identities = [panel["id"] for panel in dashboard["panels"]]
    if len(identities) != len(set(identities)):
        raise Wrong("two panels of the dashboard have one id")
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for asked in [*targets, *dashboard["annotations"]["list"]]:
        expression = asked["expr"].replace("$__rate_interval", "5m").replace("$scope", ".*")
        if "$" in expression:
            raise Wrong(f"an unknown variable of the dashboard: {expression}")
        yield expression


# --- systemd ---


def check_systemd(scratch):
    """Each unit as it is, but for the program, which is not installed here."""
    if not shutil.which("systemd-analyze"):
        apt_install("systemd", "systemd-analyze")
    units = scratch / "units"
    units.mkdir()
    program = scratch / "orphan-sweeper"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    names = sorted(path.name for path in (DEPLOY / "systemd").iterdir() if path.suffix in (".service", ".timer"))
    for name in names:
        text = (DEPLOY / "systemd" / name).read_text()
        if name.endswith(".service") and text.count(PROGRAM) != 1:
            raise Wrong(f"{name} does not name {PROGRAM} once")
        (units / name).write_text(text.replace(PROGRAM, str(program)))
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}
    for name in names:
        said = run("systemd-analyze", "verify", "--man=no", units / name, env=environment)
        ours = [line for line in said.splitlines() if str(units) in line or "orphan-sweeper" in line]
        if ours:
            raise Wrong(f"systemd-analyze verify {name}:\n" + "\n".join(ours))
        if name.endswith(".service"):
            run("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", units / name, env=environment)
        if name.endswith(".timer") and not (units / name.replace(".timer", ".service")).exists():
            raise Wrong(f"{name} starts no service")
    made = run("systemd-sysusers", "--dry-run", f"--root={scratch}", DEPLOY / "systemd" / "orphan-sweeper.sysusers")
    if "orphan-sweeper" not in made:
        raise Wrong(f"systemd-sysusers would make no user orphan-sweeper:\n{made}")
    say(f"systemd: {', '.join(names)}")


# --- Compose and Kubernetes ---


def check_compose(tools):
    """The schema; every image has a tag, and the variables are those of the example."""
    path = DEPLOY / "compose.yaml"
    run(tools / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    text = path.read_text()
    images = re.findall(r"^ +image: (\S+)$", text, re.MULTILINE)
    for image in images:
        name, _, tag = image.partition(":")
        if not tag or tag == "latest" or "." in name.split("/")[0]:
            raise Wrong(f"the image {image} has no tag of its own, or names a registry")
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    offered = set(re.findall(r"^(\w+)=", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE))
    if used != offered:
        raise Wrong(f"variables of compose.yaml and of the example differ: {sorted(used ^ offered)}")
    run("sh", "-n", DEPLOY / "compose-platform.sh")
    say(f"compose: {len(images)} images, {len(used)} variables")


def check_kubernetes(tools):
    """The schemas, and what holds for each container of ours."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for version in KUBERNETES_VERSIONS:
        run(tools / "kubernetes-validate", "--strict", "--kubernetes-version", version, *files)
    to_json = "import json, sys, yaml; print(json.dumps([d for p in sys.argv[1:] for d in yaml.safe_load_all(open(p))]))"
    documents = json.loads(run(tools / "python", "-c", to_json, *files))
    pods = [(document, spec) for document in documents if (spec := pod_of(document))]
    if {document["kind"] for document, _ in pods} != {"Deployment", "CronJob"}:
        raise Wrong("a Deployment and a CronJob are wanted")
    for document, spec in pods:
        check_pod(document["kind"], spec)
    claimed = {volume["persistentVolumeClaim"]["claimName"] for _, spec in pods for volume in spec["volumes"] if "persistentVolumeClaim" in volume}
    offered = {document["metadata"]["name"] for document in documents if document["kind"] == "PersistentVolumeClaim"}
    if claimed != offered:
        raise Wrong(f"claims {sorted(claimed)}, offered {sorted(offered)}")
    say(f"kubernetes: {len(documents)} objects, by the schemas of {' and '.join(KUBERNETES_VERSIONS)}")


def pod_of(document):
    """The pod that an object makes, if it makes one."""
    if document["kind"] == "CronJob":
        return document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return document["spec"].get("template", {}).get("spec") if document["kind"] == "Deployment" else None


def check_pod(kind, spec):
    """No root, no writable root, no rights, no token; and a daemon that is asked how it is."""
    if not spec["securityContext"].get("runAsNonRoot") or spec.get("automountServiceAccountToken") is not False:
        raise Wrong(f"the {kind} may run as root, or gets a token of the cluster")
    for container in spec["containers"]:
        context = container["securityContext"]
        wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        if context != wanted:
            raise Wrong(f"the {kind}'s container has {context}, not {wanted}")
        probes = {"startupProbe", "livenessProbe", "readinessProbe"} & container.keys()
        if (kind == "Deployment") != (len(probes) == 3):
            raise Wrong(f"the {kind} has the probes {sorted(probes)}")


def main():
    with tempfile.TemporaryDirectory(prefix="orphan-sweeper-deploy-") as folder:
        scratch = Path(folder)
        try:
            check_prometheus(scratch)
            check_systemd(scratch)
            tools = python_tools("deploy", CHECKERS)
            check_compose(tools)
            check_kubernetes(tools)
        except Missing as missing:
            say(missing)
            return 1
        except Wrong as wrong:
            say(f"deploy/ is not right: {wrong}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
