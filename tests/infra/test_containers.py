"""The form of what describes containers, which nothing here can run: versions, users, secrets, references, schemas."""

import json
import os
import re
import shutil
import subprocess
import sys

import jsonschema
import pytest
import yaml
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import apply_values, find_placeholders

from tests.flows.flow_cases import REPOSITORY

INFRA = REPOSITORY / "infra"
DOCKERFILE = (INFRA / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
TEMPLATE = json.loads((INFRA / "kubernetes/base-job-template.json").read_text())
MANIFESTS = list(yaml.safe_load_all((INFRA / "kubernetes/worker.yaml").read_text()))
PINNED = re.compile(r"[a-z0-9./-]+:(v?\d+\.\d+|RELEASE\.\d{4}-\d\d-\d\d)\S*")


def stages() -> dict[str, list[str]]:
    """Instructions by stage, continued lines joined."""
    found: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines():
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = [line]
        elif line.strip():
            found[list(found)[-1]].append(line)
    return found


def test_every_base_is_pinned_or_a_stage():
    known: set[str] = set()
    for name, instructions in stages().items():
        base = instructions[0].split()[1]
        assert base in known or PINNED.fullmatch(base), base
        known.add(name)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_runs_as_nobody_special_and_has_no_tools(target):
    instructions = stages()[target]
    users = [line for line in instructions if line.startswith("USER ")]
    assert users == ["USER 10001:10001"]
    assert not any(line.startswith("RUN") for line in instructions)
    runtime = stages()["runtime"]
    assert "RUN python -m pip uninstall --yes pip setuptools wheel" in runtime
    assert not re.search(r"apt-get install|build-essential|gcc", DOCKERFILE)
    assert DOCKERFILE.count("--constraint constraints.txt") == 1
    assert DOCKERFILE.count("--only-binary :all:") == 1
    for copied in (line for line in instructions if line.startswith("COPY")):
        assert "--from=build " in copied


def test_no_secret_goes_into_an_image():
    words = re.compile(r"(ARG|ENV)\s+\S*(password|secret|token|key)", re.IGNORECASE)
    assert not words.search(DOCKERFILE)
    ignored = (REPOSITORY / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    for kept in (line[1:] for line in ignored if line.startswith("!")):
        assert (REPOSITORY / kept).exists(), kept
    assert not any(name in line for line in ignored for name in ("!infra", "!.git", "!tests"))


def test_the_requirements_are_those_of_the_project():
    (command,) = re.findall(r'RUN python -c "(import tomllib.*)" >', DOCKERFILE)
    told = subprocess.run([sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "torch==2.13.0" in told.stdout.splitlines()
    assert any(line.startswith("prefect>=3.8") for line in told.stdout.splitlines())


@pytest.mark.parametrize("name", list(COMPOSE["services"]))
def test_a_service_is_pinned_confined_watched_and_its_log_ends(name):
    service = COMPOSE["services"][name]
    default = re.sub(r"\$\{\w+:-(.*)\}", r"\1", service["image"])
    assert default in ("corrdiff:cpu", "corrdiff:gpu") or PINNED.fullmatch(default)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert "healthcheck" in service or name == "bootstrap"
    assert "restart" in service
    assert "user" in service or name == "s3"


def test_what_compose_refers_to_is_there():
    services = COMPOSE["services"]
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert condition == "service_completed_successfully" or "healthcheck" in services[other]
        for volume in service["volumes"]:
            assert volume.split(":")[0] in COMPOSE["volumes"]
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    for profile in ("cpu", "gpu"):
        assert {name for name, service in services.items() if profile in service.get("profiles", [])} == {
            f"operations-{profile}",
            f"background-{profile}",
        }
    queues = [word for name, service in services.items() if name.endswith("-gpu") for word in service["command"]]
    deployed = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    assert {deployment["work_pool"]["work_queue_name"] for deployment in deployed} <= set(queues)
    assert services["operations-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_compose_holds_no_secret_and_no_default_for_one():
    for name, service in COMPOSE["services"].items():
        for variable, value in service.get("environment", {}).items():
            secret = re.search(r"PASSWORD|SECRET|KEY|TOKEN", variable)
            assert not secret or str(value).startswith("/run/secrets/"), (name, variable)
    text = (INFRA / "compose.yaml").read_text()
    assert not re.search(r"\$\{[^}]*(PASSWORD|SECRET|KEY)[^}]*:-", text)
    assert all(port.startswith("127.0.0.1:") for one in COMPOSE["services"].values() for port in one.get("ports", []))
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {"/infra/secrets/", "/infra/worker.env"} <= set(ignored)
    example = (INFRA / "worker.env.example").read_text()
    assert re.search(r"^AWS_SECRET_ACCESS_KEY=$", example, re.MULTILINE)


def test_the_servers_password_reaches_prefects_settings_as_compose_gives_it():
    service = COMPOSE["services"]["server"]
    assert "PREFECT_SERVER_DATABASE_PASSWORD" in service["command"][2]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {k: v for k, v in service["environment"].items() if "$" not in v}
    code = (
        "from prefect.settings import get_current_settings;"
        "print(get_current_settings().server.database.connection_url.get_secret_value())"
    )
    given = environment | {"PREFECT_SERVER_DATABASE_PASSWORD": "0af1"}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "postgresql+asyncpg://prefect:0af1@postgres:5432/prefect", done.stderr


def test_prefect_takes_the_job_template_and_its_defaults_ask_for_a_gpu():
    WorkPoolCreate(name="corrdiff", type="kubernetes", base_job_template=TEMPLATE)
    jsonschema.Draft202012Validator.check_schema(TEMPLATE["variables"])
    properties = TEMPLATE["variables"]["properties"]
    assert {found.name for found in find_placeholders(TEMPLATE["job_configuration"])} == set(properties)
    defaults = {name: told["default"] for name, told in properties.items() if "default" in told}
    jsonschema.validate(defaults, TEMPLATE["variables"])
    job = apply_values(TEMPLATE["job_configuration"], defaults)["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "24Gi", "nvidia.com/gpu": 1}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_kubernetes_own_schemas():
    """By hand: pip install kubernetes-validate, 110 MB of schemas that not every clone should need."""
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for manifest in MANIFESTS:
        validator.validate(manifest, "1.32", strict=True)
    defaults = {k: v["default"] for k, v in TEMPLATE["variables"]["properties"].items() if "default" in v}
    values = {**defaults, "name": "job", "command": ["true"], "env": [], "labels": {}, "annotations": {}}
    job = apply_values(TEMPLATE["job_configuration"], values)["job_manifest"]
    for wanted_by_prefect in ("completions", "parallelism"):  # where Kubernetes overlooks them
        del job["spec"]["template"]["spec"][wanted_by_prefect]
    validator.validate(job, "1.32", strict=True)


def test_the_worker_may_do_no_more_than_start_jobs():
    kinds = {manifest["kind"]: manifest for manifest in MANIFESTS}
    assert set(kinds) == {"Namespace", "ServiceAccount", "Role", "RoleBinding", "Deployment"}
    for rule in kinds["Role"]["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]
    accounts = {manifest["metadata"]["name"] for manifest in MANIFESTS if manifest["kind"] == "ServiceAccount"}
    assert TEMPLATE["variables"]["properties"]["service_account_name"]["default"] in accounts


@pytest.mark.parametrize("unit", sorted(path.name for path in (INFRA / "systemd").iterdir()))
def test_systemd_takes_the_units(tmp_path, unit):
    """With a program that is there in the place of the one that is installed."""
    text = (INFRA / "systemd" / unit).read_text().replace("/opt/corrdiff/.venv/bin/prefect", "/bin/true")
    copy = tmp_path / unit.replace("@", "@operations")
    copy.write_text(text)
    program = shutil.which("systemd-analyze") or pytest.skip("no systemd-analyze")
    done = subprocess.run([program, "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
