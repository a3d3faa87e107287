"""A pytest plugin: a JSON line for every test as soon as it has ended. A run that is stopped says how far it came."""

import json


def pytest_addoption(parser):
    parser.addoption("--lines", help="file for one JSON line per test: its name, outcome, seconds, and why it failed")


def pytest_configure(config):
    path = config.getoption("--lines")
    if path and not hasattr(config, "workerinput"):  # the process that hears of all results
        config.pluginmanager.register(Lines(path))


class Lines:
    def __init__(self, path):
        self.file = open(path, "w", buffering=1)  # noqa: SIM115  it is open as long as the run

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
            if report.failed:
                line["why"] = str(report.longrepr)[-1500:]
            self.file.write(json.dumps(line) + "\n")

    def pytest_collectreport(self, report):
        if report.failed:
            self.file.write(
                json.dumps({"test": report.nodeid, "outcome": "failed", "why": str(report.longrepr)}) + "\n"
            )
