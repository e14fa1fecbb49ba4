"""compose.yaml, the Dockerfile and the pages about them say what the program does."""

import re
import runpy
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from ordinaut.cli.serve import GRACE_SECONDS, ROLES
from ordinaut.runtime.metrics import REGISTRY
from ordinaut.runtime.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()

SETTINGS = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
OF_COMPOSE = set(re.findall(r"\$\{(ORDINAUT_[A-Z_]+)", COMPOSE))
"""Variables that compose.yaml reads itself: images, passwords, addresses."""

check = runpy.run_path(str(ROOT / "deploy" / "healthcheck.py"))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
    return found


def test_each_role_is_a_service_of_its_own(services: dict[str, Any]) -> None:
    commands = {name: service.get("command") for name, service in services.items() if name in ROLES}
    assert commands == {role: ["serve", role] for role in ROLES}


def test_a_role_starts_when_the_servers_are_well_and_the_database_is_migrated(
    services: dict[str, Any],
) -> None:
    for role in ROLES:
        assert {name: want["condition"] for name, want in services[role]["depends_on"].items()} == {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "redis": "service_healthy",
        }
    assert services["migrate"]["command"] == ["migrate"]
    assert services["migrate"]["restart"] == "no"


def test_every_service_but_the_one_shot_comes_back_after_a_crash(services: dict[str, Any]) -> None:
    assert {name for name, one in services.items() if one["restart"] != "unless-stopped"} == {"migrate"}


def test_nothing_keeps_a_service_from_being_scaled(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "container_name" in service] == []
    assert [name for name, service in services.items() if "ports" in service] == ["api"]


def test_only_this_machine_reaches_the_api_unless_an_address_is_given(services: dict[str, Any]) -> None:
    assert services["api"]["ports"] == ["${ORDINAUT_API_ADDRESS:-127.0.0.1}:${ORDINAUT_API_PORT:-8080}:8080"]


def test_a_stop_waits_longer_than_a_drain_takes(services: dict[str, Any]) -> None:
    drain = float(Settings.model_fields["drain_seconds"].default) + GRACE_SECONDS
    for role in ROLES:
        default = re.fullmatch(
            r"\$\{ORDINAUT_STOP_GRACE_PERIOD:-(\d+)s\}", services[role]["stop_grace_period"]
        )
        assert default is not None
        assert float(default[1]) > drain


def test_the_admin_key_is_asked_for_and_given_to_the_api_alone(services: dict[str, Any]) -> None:
    assert services["api"]["environment"]["ORDINAUT_API_KEY"].startswith("${ORDINAUT_API_KEY:?")
    assert [name for name, one in services.items() if "ORDINAUT_API_KEY" in one["environment"]] == ["api"]


def test_images_are_the_ones_the_environment_names(services: dict[str, Any]) -> None:
    assert services["postgres"]["image"] == "${ORDINAUT_POSTGRES_IMAGE:-postgres:18}"
    assert services["redis"]["image"] == "${ORDINAUT_REDIS_IMAGE:-redis:8}"


def test_the_data_directory_lies_in_the_volume_whatever_the_version_of_the_image(
    services: dict[str, Any],
) -> None:
    postgres = services["postgres"]
    mounted = postgres["volumes"][0].partition(":")[2]
    assert postgres["environment"]["PGDATA"].startswith(f"{mounted}/")
    # Images before 18 declare this as a volume of its own, which is lost with the container.
    assert not postgres["environment"]["PGDATA"].startswith("/var/lib/postgresql/data")


def test_every_variable_handed_to_a_role_is_a_setting(services: dict[str, Any]) -> None:
    handed = {name for service in (*ROLES, "migrate") for name in services[service]["environment"]}
    assert handed - SETTINGS == set()


def test_every_role_can_be_scraped_where_the_page_says(services: dict[str, Any]) -> None:
    (example,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", DEPLOYMENT, re.DOTALL)
    (found,) = yaml.safe_load(example)["scrape_configs"][0]["dns_sd_configs"]
    assert set(found["names"]) == set(ROLES)
    ports = {services[role]["environment"]["ORDINAUT_METRICS_PORT"] for role in ROLES}
    assert ports == {f"${{ORDINAUT_METRICS_PORT:-{found['port']}}}"}


def test_every_metric_on_the_page_exists() -> None:
    section = DEPLOYMENT.partition("## Metrics")[2].partition("\n## ")[0]
    named = set(re.findall(r"\bordinaut_[a-z_]+", section))
    known = {sample for metric in REGISTRY.collect() for sample in (metric.name, f"{metric.name}_total")}
    assert named - known == set()


def test_the_image_runs_as_nobody_special_and_holds_no_embedded_servers() -> None:
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "USER 10001:10001" in last_stage
    assert "STOPSIGNAL SIGTERM" in last_stage
    assert 'ENTRYPOINT ["ordinaut"]' in last_stage
    assert "pip install" not in last_stage
    assert "embedded" not in DOCKERFILE


@pytest.mark.parametrize("variable", sorted(SETTINGS | OF_COMPOSE))
def test_every_variable_is_on_the_page_about_deployment(variable: str) -> None:
    assert f"`{variable}`" in DEPLOYMENT


def test_the_page_about_deployment_names_no_variable_that_does_not_exist() -> None:
    named = set(re.findall(r"ORDINAUT_[A-Z][A-Z_]*[A-Z]", DEPLOYMENT))
    # The secrets of tasks have any name that follows.
    named = {name for name in named if not f"{name}_".startswith("ORDINAUT_SECRET_")}
    assert named - SETTINGS - OF_COMPOSE - {"ORDINAUT_URL"} == set()


@pytest.mark.parametrize(
    ("command", "roles"),
    [
        (["python3", "/opt/ordinaut/bin/ordinaut", "serve", "worker", "clock"], ["worker", "clock"]),
        (["ordinaut", "serve"], []),
        (["ordinaut", "migrate"], None),
    ],
)
def test_the_health_check_knows_the_roles_from_the_command(
    command: list[str], roles: list[str] | None
) -> None:
    assert check["roles_of"](command) == roles


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://ordinaut:secret@postgres:5433/ordinaut", ("postgres", 5433)),
        ("postgresql://postgres/ordinaut", ("postgres", 5432)),
        ("postgresql:///ordinaut?host=db.example&port=6000", ("db.example", 6000)),
        ("postgresql:///ordinaut?host=/var/run/postgresql", None),
    ],
)
def test_the_health_check_reads_the_database_s_address(url: str, where: tuple[str, int] | None) -> None:
    assert check["database_port"](url) == where


def test_the_health_check_reads_open_connections_as_linux_lists_them() -> None:
    heading = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    listening = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n"
    over_4 = "   1: 0400A8C0:E1D2 0200A8C0:1538 01 00000000:00000000\n"
    mapped = "   2: 0000000000000000FFFF00000400A8C0:E1D2 0000000000000000FFFF00000200A8C0:1538 01 0:0\n"
    expected = [(ip_address("192.168.0.2"), 5432)]
    assert list(check["connections"](heading + listening + over_4)) == expected
    assert list(check["connections"](heading + mapped)) == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc")
def test_the_health_check_sees_a_connection_that_is_open_and_one_that_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/ordinaut"
        assert "is open" in check["trouble_with_database"](url)
        with socket.create_connection(server.getsockname()):
            assert check["trouble_with_database"](url) is None
