"""The example plugins, each installed as a third party's would be: by pip, into an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


class Installation:
    """An environment that sees what this one has (so nothing is fetched), and the examples that a test wants."""

    def __init__(self, directory: Path, *examples: str) -> None:
        venv.create(directory / "venv", with_pip=False, symlinks=True)
        self.python = directory / "venv" / "bin" / "python"
        (site,) = (directory / "venv" / "lib").glob("python*/site-packages")
        ours = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        lines = [f"import site; site.addsitedir({each!r})" for each in ours]
        (site / "ours.pth").write_text("\n".join(lines) + "\n")
        self.home = directory / "home"
        self.home.mkdir()
        for example in examples:
            source = directory / example
            copy_source(EXAMPLES / example, source)  # a build leaves files beside what it builds
            self.call("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", str(source))

    def call(self, *words: str, cwd: Path | None = None, code: int = 0, **environment: str) -> str:
        """Run Python there; check the exit code and return what was printed on both streams."""
        done = subprocess.run(
            [self.python, *words],
            cwd=cwd or self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def mqi(self, *words: str, code: int = 0, **environment: str) -> str:
        """Run mqi there."""
        return self.call("-m", "mqi_cli", *words, code=code, **environment)


def copy_source(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with the plugin `report`."""
    return Installation(tmp_path_factory.mktemp("report"), "mqi_result_report")


@pytest.fixture
def configured(report: Installation) -> Callable[[str], Path]:
    """Give a function that writes a config for one test; it returns the test's directory."""

    def configure(name: str) -> Path:
        place = report.home / name
        place.mkdir()
        workflow = [
            {"upload": {"host": "here"}},
            {"run": {"host": "here", "command": "sh -c 'cat {input_dir}/*.dat >dose.raw'", "outputs": ["dose.raw"]}},
            {"download": {"host": "here", "to": f"{place}/results/{{case_name}}"}},
            {"report": {"to": f"{place}/pages/{{case_name}}.html", "ledger": f"{place}/ledger.csv"}},
        ]
        config = {
            "state": {"path": f"{place}/state/state.db"},
            "hosts": {"here": {"type": "local", "base_dir": f"{place}/base"}},
            "sources": [{"path": f"{place}/in", "complete_when": "manual", "workflow": "qa"}],
            "workflows": {"qa": workflow},
            "report": {"site": "Example clinic"},
        }
        (place / "in" / "plan-7").mkdir(parents=True)
        (place / "in" / "plan-7" / "a.dat").write_text("seven")
        (place / "mqi.yaml").write_text(json.dumps(config))
        return place

    return configure


def test_an_installed_plugin_is_listed_with_what_it_brings(report: Installation) -> None:
    plugins = {row["name"]: row for row in json.loads(report.mqi("plugin", "list", "--json"))}
    assert plugins["report"]["state"] == "ok"
    assert plugins["report"]["distribution"] == "mqi-result-report"
    assert {"curator", "sftp", "scanner", "archiver", "ssh-exec"} <= set(plugins)
    assert "mqi report" not in report.mqi("case", "-h")
    assert "Write a case's page now" in report.mqi("report", "-h")


def test_it_keeps_the_contract_and_its_own_tests_pass(report: Installation) -> None:
    report.mqi("plugin", "test", "mqi_result_report.plugin")
    tests = report.home.parent / "mqi_result_report"
    assert "passed" in report.call("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tests)


def test_a_case_goes_through_a_workflow_with_its_stage(report: Installation, configured: Callable[[str], Path]) -> None:
    place = configured("workflow")
    config = ("--config", str(place / "mqi.yaml"))
    report.mqi(*config, "config", "check")
    report.mqi(*config, "case", "add", str(place / "in" / "plan-7"))
    report.mqi(*config, "transfer", "upload", "plan-7")
    report.mqi(*config, "exec", "run", "plan-7")
    report.mqi(*config, "transfer", "download", "plan-7")
    assert "1 results, 5 bytes" in report.mqi(*config, "report", "write", "plan-7")

    (case,) = json.loads(report.mqi(*config, "case", "list", "--all", "--json"))
    assert (case["name"], case["state"]) == ("plan-7", "done")
    page = (place / "pages" / "plan-7.html").read_text()
    assert "dose.raw" in page
    assert "Example clinic" in page
    assert (place / "ledger.csv").read_text().splitlines()[1].startswith(f"{case['key']},plan-7,1,1,5,")
    (row,) = json.loads(report.mqi(*config, "report", "list", "--json"))
    assert (row["key"], row["files"]) == (case["key"], 1)


def test_the_doctor_asks_it_too(report: Installation, configured: Callable[[str], Path]) -> None:
    place = configured("doctor")
    said = report.mqi("--config", str(place / "mqi.yaml"), "doctor", "--json")
    lines = [line for line in json.loads(said) if line["name"] == "reports"]
    assert [line["verdict"] for line in lines] == ["ok", "ok"]


def test_a_mistake_in_its_options_is_found_before_anything_runs(
    report: Installation, configured: Callable[[str], Path]
) -> None:
    place = configured("mistakes")
    file = place / "mqi.yaml"
    file.write_text(file.read_text().replace("{case_name}.html", "page.html").replace('"site"', '"sit"'))
    said = report.mqi("--config", str(file), "config", "check", code=3)
    assert "replaces the last one" in said
    assert "did you mean" in said or "site" in said


def test_a_workflow_that_needs_a_plugin_that_is_switched_off_names_it(
    report: Installation, configured: Callable[[str], Path]
) -> None:
    place = configured("off")
    said = report.mqi("--config", str(place / "mqi.yaml"), "config", "check", code=3, MQI_DISABLE_PLUGINS="report")
    assert "report (disabled)" in said


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with a plugin that fails when it is imported, beside one that works."""
    return Installation(tmp_path_factory.mktemp("broken"), "mqi_broken_plugin", "mqi_result_report")


def test_a_plugin_that_does_not_load_is_named_and_the_rest_goes_on(broken: Installation) -> None:
    said = broken.mqi("plugin", "list")
    assert "libcudart.so.12" in said
    assert "disable: [broken]" in said
    assert "No case has a page yet." in broken.mqi("report", "list")
    broken.mqi("case", "list")


def test_the_doctor_fails_for_a_plugin_that_does_not_load_and_looks_at_the_rest(broken: Installation) -> None:
    lines = {line["name"]: line for line in json.loads(json_part(broken.mqi("doctor", "--json", code=1)))}
    assert lines["plugin broken"]["verdict"] == "fail"
    assert "disable: [broken]" in lines["plugin broken"]["mend"]
    assert lines["state directory"]["verdict"] == "ok"


def test_a_broken_plugin_that_is_switched_off_is_not_mentioned(broken: Installation) -> None:
    said = broken.mqi("report", "list", MQI_DISABLE_PLUGINS="broken")
    assert "libcudart" not in said
    assert "left out" not in said


def json_part(said: str) -> str:
    """Cut off what was said on standard error."""
    return said[: said.rindex("]") + 1]
