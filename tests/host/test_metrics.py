"""What a server with jobs tells Prometheus: by a plain scrape, and to a real one, with the dashboard and alerts."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
import yaml
from harness import PATIENCE, ROOT, Server, Stock, poll_until
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

RULES = ROOT / "deploy/prometheus/joblet-alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/joblet.json"
MIB = 1 << 20
TOLD = re.compile(r"metrics are told \| listen=(\S+)")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Debian's package prometheus is not on this machine",
)


@dataclass
class Told:
    """A server that tells its figures."""

    server: Server
    address: str
    client: Stock
    running: str = ""
    """id of a job that runs on"""
    streams: list[Any] = field(default_factory=list)

    def scrape(self) -> dict[str, Metric]:
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=PATIENCE) as answer:
            return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}

    def value(self, name: str, **labels: str) -> float:
        """Of the one sample with these labels."""
        samples = [sample for family in self.scrape().values() for sample in family.samples]
        (value,) = (each.value for each in samples if each.name == name and each.labels == labels)
        return value


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, certificates: Path, stock: tuple[ModuleType, ModuleType]
) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("told")
    server = Server(folder, certificates, metrics={"listen": "127.0.0.1:0"}, joblet={"maxConcurrentJobs": 3})
    server.start()
    try:
        with server.channel() as channel:
            yield Told(server, server.wait_for_line(TOLD).group(1), Stock(channel, *stock))
    finally:
        server.close()


def work(told: Told, stock: tuple[ModuleType, ModuleType]) -> None:
    """Something of each kind: jobs that end in several ways, that run and are scheduled, a workflow, a call that is
    refused, and somebody who is no client.
    """
    client, (messages, stubs) = told.client, stock
    client.finish("sh", "-c", "echo 12345")
    client.finish("sh", "-c", "exit 3")
    client.finish("absent-command")
    client.stop(client.started("sleep", "1000").id)
    told.running = client.started("sh", "-c", "echo 1234567; exec sleep 1000").id
    follower = client.stub.GetJobLogs(messages.GetJobLogsReq(id=told.running))
    assert next(follower).payload == b"1234567\n"
    told.streams.append(follower)
    client.run("sleep", "1000", schedule=messages.Schedule(when="@yearly"))
    with told.server.channel("viewer") as channel, pytest.raises(grpc.RpcError):
        Stock(channel, *stock).run("true")
    with told.server.channel() as channel:
        engine = stubs.JobServiceStub(channel)
        text = "jobs: {one: {command: 'true'}}"
        order = messages.RunWorkflowRequest(workflow="one.yaml", yamlContent=text)
        workflow_id = engine.RunWorkflow(order).workflowId
        status = messages.GetWorkflowStatusRequest(workflowId=workflow_id)
        poll_until(lambda: engine.GetWorkflowStatus(status).workflow.status == "COMPLETED")
    with socket.create_connection(("localhost", told.server.port), PATIENCE) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while stranger.recv(4096):
            pass


@pytest.fixture(scope="module")
def busy(told: Told, stock: tuple[ModuleType, ModuleType]) -> Told:
    work(told, stock)
    return told


def test_the_page_has_every_metric_and_no_other(busy: Told) -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    listed = {
        (name, kind): tuple(re.findall(r"`(\w+)`", labels))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (gauge|counter|histogram) \|(.*?)\| ", page, re.MULTILINE)
    }
    ours = {"le"}
    told = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type): set().union(
            *(sample.labels.keys() - ours for sample in family.samples)
        )
        for family in busy.scrape().values()
    }
    assert told == {key: set(labels) for key, labels in listed.items()}


def test_figures_are_what_has_happened(busy: Told) -> None:
    causes = {"completed": 2, "exit_code": 1, "not_started": 1, "stopped": 1, "lost": 0, "timeout": 0}
    for cause, count in causes.items():
        assert busy.value("joblet_jobs_ended_total", cause=cause) == count, cause
    assert busy.value("joblet_jobs", state="running") == busy.value("joblet_slots_used") == 1
    assert busy.value("joblet_jobs", state="scheduled") == busy.value("joblet_schedules") == 1
    assert busy.value("joblet_job_launch_seconds_count") == 5
    assert busy.value("joblet_job_queue_wait_seconds_count") == 5
    assert busy.value("joblet_workflows_ended_total", state="completed") == 1
    assert busy.value("joblet_log_followers", position="live") == 1
    assert busy.value("joblet_log_written_bytes_total") >= len("12345\n")
    assert busy.value("joblet_log_running_bytes") == len("1234567\n")
    assert busy.value("joblet_log_sent_bytes_total") >= len("12345\n1234567\n")
    assert busy.value("joblet_rpcs_total", method="JobletService/RunJob", code="OK") == 6
    assert busy.value("joblet_rpcs_total", method="JobletService/RunJob", code="PERMISSION_DENIED") == 1
    assert busy.value("joblet_rpc_duration_seconds_count", method="JobletService/RunJob") == 6
    assert busy.value("joblet_rpcs_in_progress", method="JobletService/GetJobLogs") == 1
    assert busy.value("joblet_handshake_failures_total", reason="tls") == 1
    assert busy.value("joblet_store_commit_changes_sum") >= 15
    assert busy.value("joblet_cgroup_processes") >= 2
    assert busy.value("joblet_certificate_expiry_timestamp_seconds", certificate="server") > 1.7e9


def test_jobs_that_wait_are_counted(busy: Told) -> None:
    running = [busy.client.started("sleep", "1000").id for _ in range(2)]
    waiting = busy.client.run("sleep", "1000").id
    assert busy.value("joblet_queue_jobs") == busy.value("joblet_queue_places_used") == 1
    assert busy.value("joblet_slots_used") == busy.value("joblet_slots") == 3
    for job_id in (waiting, *running):
        busy.client.stop(job_id)
    assert busy.value("joblet_queue_jobs") == 0


FIGURES = {
    "cpuUsec": "joblet_cgroup_cpu_seconds_total",
    "ioReadBytes": "joblet_cgroup_read_bytes_total",
    "ioWriteBytes": "joblet_cgroup_written_bytes_total",
}
"""what the kernel counts of one job, and the sum for all"""
LEEWAY = {"cpuUsec": 200_000, "ioReadBytes": MIB, "ioWriteBytes": MIB}
"""more that all may have used: what ends a job is in no receipt, and its last dirty pages are written after it"""
USE = """
dd if=/dev/zero of=f bs=1M count=8 oflag=direct && dd if=f of=/dev/null bs=1M count=4 iflag=direct
SECONDS=0; until [ $SECONDS -ge 2 ]; do :; done
"""
HOLD = "data=$(head -c 24M /dev/zero | tr '\\0' x); sleep 1000 & sleep 1000 & echo ready; wait"


def test_the_groups_figures_are_what_jobs_have_used(
    make_server: Callable[..., Server], stock: tuple[ModuleType, ModuleType]
) -> None:
    """Beside the kernel's own count for each of three: two that have ended, and one that sleeps."""
    messages, stubs = stock
    server = make_server(metrics={"listen": "127.0.0.1:0"}).start()
    with server.channel() as channel:
        told = Told(server, server.wait_for_line(TOLD).group(1), Stock(channel, *stock))

        def counted() -> dict[str, float]:
            return {key: told.value(name) * (1e6 if key == "cpuUsec" else 1) for key, name in FIGURES.items()}

        def check(before: dict[str, float], *used: Any) -> None:
            for key, now in counted().items():
                jobs = sum(getattr(each, key) for each in used)
                assert -1 <= now - before[key] - jobs <= LEEWAY[key], (key, before, now, used)

        start = counted()  # a server tries whether it can run jobs
        plain = told.client.finish("bash", "-c", USE)[0].receipt
        check(start, plain)
        limited = told.client.finish("bash", "-c", USE, maxDisk=32)[0].receipt
        check(start, plain, limited)
        for receipt in (plain, limited):  # a directory with a limit is a disk in a file, which does the same once more
            assert 0 <= receipt.ioReadBytes - 4 * MIB < MIB
            assert 0 <= receipt.ioWriteBytes - 8 * MIB < MIB
        assert told.value("joblet_cgroup_processes") == 0
        idle = told.value("joblet_cgroup_memory_bytes")

        holding = told.client.started("bash", "-c", HOLD).id
        assert next(told.client.logs(holding)) == b"ready\n"
        order = messages.StreamJobUsageReq(ids=[holding], intervalMs=200)
        watch = stubs.MonitoringServiceStub(channel).StreamJobUsage(order)
        sample = next(watch).jobs[0]
        watch.cancel()
        check(start, plain, limited, sample)
        assert told.value("joblet_cgroup_processes") == sample.processes == 4
        held = told.value("joblet_cgroup_memory_bytes") - idle
        assert 24 * MIB < sample.memoryBytes < 128 * MIB
        assert abs(held - sample.memoryBytes) < 4 * MIB
        told.client.stop(holding)
        check(start, plain, limited, told.client.status(holding).receipt)
        assert told.value("joblet_cgroup_processes") == 0
        assert told.value("joblet_cgroup_memory_bytes") < idle + 4 * MIB


def test_a_port_that_is_taken_keeps_no_server_from_its_work(make_server: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        server = make_server(metrics={"listen": listen}).start()
    line = server.wait_for_line(re.compile(r"metrics cannot be told.*")).group()
    assert line == f'metrics cannot be told | error="metrics.listen: {listen}: Address already in use"'
    assert server.rnx("monitor", "--once", "--json", "--interval=1s").returncode == 0


@needs_prometheus
def test_promtool_finds_nothing_wrong(busy: Told) -> None:
    with urllib.request.urlopen(f"http://{busy.address}/metrics", timeout=PATIENCE) as answer:
        text = answer.read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr.decode()) == (0, "")
    subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES], check=True, capture_output=True)


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_the_page_says_of_every_alert_what_to_do() -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    assert re.findall(r"^\| `(Joblet\w+)` \| \S.+ \|$", page, re.MULTILINE) == list(alerts())


INSTANCE = 'instance="a"'
ALL = f'job="joblet", {INSTANCE}'


def series(name: str, fires: str, silent: str, *, labels: str = "", **steady: str) -> tuple[dict[str, str], ...]:
    """Of one metric, beside those that stay as they are."""
    others = {f"{other}{{{ALL}}}": values for other, values in steady.items()}
    key = f"{name}{{{ALL}{labels}}}"
    return {key: fires, **others}, {key: silent, **others}


def slow(metric: str, fires: str, silent: str) -> tuple[dict[str, str], ...]:
    """A histogram whose values all lie between two bounds."""

    def of(bound: str) -> dict[str, str]:
        bounds = ("0.025", "0.25", "0.5", "1.0", "+Inf")
        grows = {each: float(each.replace("+I", "i")) >= float(bound) for each in bounds}
        return {f'{metric}_bucket{{{ALL}, le="{each}"}}': "0+60x60" if more else "0x60" for each, more in grows.items()}

    return of(fires), of(silent)


CASES = {
    "JobletDown": series("up", "0x60", "1x60"),
    "JobletRestarts": series("process_start_time_seconds", "0+1x60", "7x60"),
    "JobletHostUnable": series("joblet_host_able", "0x60", "1x60"),
    "JobletDatabaseDamaged": series("joblet_store_damaged", "1x60", "0x60"),
    "JobletCommitsFail": series("joblet_store_commit_failures_total", "0+1x60", "5x60"),
    "JobletCommitsSlow": slow("joblet_store_commit_seconds", "0.5", "0.025"),
    "JobletDiskNearlyFull": series("joblet_state_disk_free_bytes", "9x60", "11x60", joblet_state_disk_bytes="100x60"),
    "JobletDiskFull": series("joblet_state_disk_free_inodes", "1x60", "9x60", joblet_state_disk_inodes="100x60"),
    "JobletDiskFillsUp": series("joblet_state_disk_free_bytes", "100-1x60", "1000-1x60"),
    "JobletQueueNearlyFull": series("joblet_queue_places_used", "91x60", "90x60", joblet_queue_places="100x60"),
    "JobletJobsWait": series("joblet_queue_jobs", "1x60", "0x60", joblet_slots="2x60", joblet_slots_used="2x60"),
    "JobletLaunchesSlow": slow("joblet_job_launch_seconds", "1.0", "0.25"),
    "JobletJobsLost": series("joblet_jobs_ended_total", "0+1x60", "3x60", labels=', cause="lost"'),
    "JobletOutputLost": series("joblet_log_lost_bytes_total", "0+9x60", "9x60"),
    "JobletSchedulesOverdue": series("joblet_schedules_overdue", "1x60", "0x60"),
    "JobletCallsFail": tuple(
        {f'joblet_rpcs_total{{{ALL}, code="OK"}}': "0+98x60", f'joblet_rpcs_total{{{ALL}, code="{code}"}}': "0+2x60"}
        for code in ("INTERNAL", "NOT_FOUND")
    ),
    "JobletEventLoopLate": slow("joblet_event_loop_lag_seconds", "0.5", "0.025"),
    "JobletConnectionsNearlyAll": series("joblet_connections", "91x60", "90x60", joblet_connections_limit="100x60"),
    "JobletDescriptorsNearlyAll": series("process_open_fds", "81x60", "80x60", process_max_fds="100x60"),
    "JobletHandshakesFail": series("joblet_handshake_failures_total", "0+60x60", "0+6x60", labels=', reason="tls"'),
    "JobletCertificateExpires": series("joblet_certificate_expiry_timestamp_seconds", "2000000x60", "2800000x60"),
    "JobletCertificateExpiresSoon": series("joblet_certificate_expiry_timestamp_seconds", "600000x60", "700000x60"),
}
"""of each alert, series that make it fire and such that do not, in promtool's notation: a value a minute"""


@needs_prometheus
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert list(CASES) == list(alerts())
    given = [
        (alert, f"{alert}-{'fires' if fires else 'silent'}", fires, values)
        for alert, cases in CASES.items()
        for fires, values in zip((True, False), cases, strict=True)
    ]
    test = {
        "interval": "1m",
        "input_series": [
            {"series": name.replace(INSTANCE, f'instance="{instance}"'), "values": text}
            for _, instance, _, values in given
            for name, text in values.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing", instance="{instance}"}})',
                "eval_time": "59m",
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
            for alert, instance, fires, _ in given
        ],
    }
    path = tmp_path / "alerts.test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A real one that scrapes a server each second, and evaluates the rules."""

    def __init__(self, folder: Path, target: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "joblet", "static_configs": [{"targets": [target]}]}],
            "rule_files": [str(RULES)],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self._address}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._log.close()

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}", timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[float]:
        """Those of all series that a query finds now."""
        return [float(each["value"][1]) for each in self.ask("query", query=query)["result"]]

    def scrapes(self) -> int:
        """How many have succeeded."""
        try:
            return int(sum(self.values('count_over_time((up{job="joblet"} == 1)[1h:1s])')))
        except OSError:  # it does not listen yet
            return 0


@pytest.fixture(scope="module")
def prometheus(
    told: Told, stock: tuple[ModuleType, ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """One that has seen the server before, during and after its work."""
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), told.address)
    try:
        poll_until(lambda: prometheus.scrapes() > 0)
        work(told, stock)
        before = prometheus.scrapes()
        poll_until(lambda: prometheus.scrapes() >= before + 2)
        yield prometheus
    finally:
        prometheus.close()


def queries() -> list[tuple[str, str]]:
    """The title of each panel, and its queries as Grafana would send them."""
    board = json.loads(DASHBOARD.read_text())
    values = {"$__rate_interval": "1m", "$job": "joblet", "$instance": ".*"}
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in values.items():
                query = query.replace(name, value)
            found.append((panel["title"], query))
    return found


@needs_prometheus
def test_every_query_of_the_dashboard_finds_what_there_is(prometheus: Prometheus) -> None:
    found = {(title, query): prometheus.values(query) for title, query in queries()}
    assert len(found) > 60
    assert [which for which, values in found.items() if not values or any(map(math.isnan, values))] == []


@needs_prometheus
def test_the_choices_of_the_dashboard_are_there(prometheus: Prometheus) -> None:
    assert prometheus.ask("label/job/values", **{"match[]": "joblet_build_info"}) == ["joblet"]
    assert len(prometheus.ask("label/instance/values", **{"match[]": "joblet_build_info{job=~'joblet'}"})) == 1


@needs_prometheus
def test_every_rule_evaluates_and_all_that_it_asks_for_is_there(prometheus: Prometheus) -> None:
    def rules() -> list[Any]:
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    poll_until(lambda: all(rule["health"] != "unknown" for rule in rules()))
    assert [(rule["name"], rule.get("lastError")) for rule in rules() if rule["health"] != "ok"] == []
    # What becomes of this host's disk in so short a time says nothing of the rule.
    stirred = {rule["name"] for rule in rules() if rule.get("state") in ("pending", "firing")}
    assert stirred <= {"JobletDiskFillsUp"}
    names = {name for rule in rules() for name in re.findall(r"\b(?:joblet[_:]|process_|up\b)[\w:]*", rule["query"])}
    poll_until(lambda: all(prometheus.values(name) for name in names))
