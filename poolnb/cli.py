"""The command line: `poolnb run | sweep | studies | measure | book | bench | build | doctor`.

Everything is imported when its command is called: `poolnb doctor` works with optional packages missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

# Commands that read their own arguments: module, and what the overview says. The book's is in a checkout alone.
_OTHERS = {
    "book": ("poolnb.book.build", "execute the chapters, check their receipts, render the site"),
    "bench": ("poolnb.bench", "measure the operators"),
    "build": ("poolnb.build", "build the native kernels"),
}
STOPPED = 130  # the exit status after Ctrl-C
CLOSED = 141  # and after the reader of a pipe has gone
_CHECKOUT = Path(__file__).parent.parent


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _fail(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command; the exit status: 1 if runs failed or are missing, 2 after a mistake, else as shells do."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] == "book" and "book" not in _others():
        _fail("`poolnb book` works in a checkout of the project: the installed library comes without chapters")
    try:
        if argv and argv[0] in _others():
            return importlib.import_module(_OTHERS[argv[0]][0]).main(argv[1:]) or 0
        arguments = _parse(argv)
        status = int(arguments.act(arguments))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("poolnb: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # who reads has closed the pipe, as `head` does: nothing more to say, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except ModuleNotFoundError as error:
        if (error.name or "poolnb").startswith("poolnb"):
            raise
        _fail(f"{error.name} is not installed; pip install 'poolnb[lab]' brings what experiments need")
    except Exception as error:
        from poolnb.lab.errors import UserError

        if isinstance(error, UserError):
            _fail(str(error))
        raise


def _parse(argv: list[str]) -> argparse.Namespace:
    named = next((word for word in argv if not word.startswith("-")), "")
    parser = _parser(running=named == "run")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command in _others():  # reached when options came before the command
        parser.error(f"options of {arguments.command!r} come after it")
    if rest:
        _fail(
            f"unknown argument {' '.join(rest)}; `poolnb {arguments.command}` accepts: {', '.join(arguments.accepts)}"
        )
    return arguments


def _fail(message: str) -> NoReturn:
    print(f"poolnb: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _others() -> list[str]:
    return [name for name in _OTHERS if name != "book" or (_CHECKOUT / "_toc.yml").is_file()]


def _parser(running: bool) -> argparse.ArgumentParser:
    """``running``: with the options of `run`, whose defaults need the lab's packages."""
    parser = _Parser(prog="poolnb", description="Pooling operators: runs, sweeps and the book.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command", parser_class=_Parser)

    def command(name: str, act: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        made.set_defaults(act=act)
        return made

    run_parser = command("run", _run, "train and test once, and keep the record")
    if running:
        _add_config_options(run_parser)
    run_parser.add_argument("--results", default="results", help="folder for the record (default: results)")
    run_parser.add_argument("--quiet", action="store_true", help="no progress bar")

    sweep_parser = command("sweep", _sweep, "do the runs of a sweep file that are still missing")
    sweep_parser.add_argument("spec", metavar="SPEC.toml", help="the sweep: fixed parameters, a grid, variants")
    sweep_parser.add_argument("--results", help="folder for the records (default: results/NAME-OF-SPEC)")
    sweep_parser.add_argument("--workers", type=int, help="processes (default: cores / threads of a run)")
    sweep_parser.add_argument("--scheduler", metavar="ADDRESS", help="do the runs on the Dask cluster at this address")
    sweep_parser.add_argument("--fast", action="store_true", help="call the function, not the notebook: same records")
    sweep_parser.add_argument("--retry-failed", action="store_true", help="do failed runs again")
    sweep_parser.add_argument("--quiet", action="store_true", help="no progress bar")

    studies_parser = None
    if "book" in _others():
        studies_parser = command("studies", _studies, "do all studies of the book, in order of worth, what is missing")
        studies_parser.add_argument("names", metavar="STUDY", nargs="*", help="only these (default: all)")
        studies_parser.add_argument("--device", help="where to train (default: auto, cuda if there)")
        studies_parser.add_argument(
            "--workers", type=int, help="processes (default: cores / threads of a run; 4 that share a GPU)"
        )
        studies_parser.add_argument("--retry-failed", action="store_true", help="do failed runs again")
        studies_parser.add_argument("--list", action="store_true", help="name them, with what is done, and stop")
        studies_parser.add_argument("--quiet", action="store_true", help="no progress bar")

    measure_parser = command("measure", _measure, "do the measurements of a kind that are still missing")
    measure_parser.add_argument(
        "kind",
        metavar="KIND",
        help="gradients, test-pooling, shift-consistency, training-cost, alternatives, large-batches or calls",
    )
    measure_parser.add_argument("--results", help="folder for the records (default: results/KIND)")
    measure_parser.add_argument("--quiet", action="store_true", help="no progress bar")

    command("doctor", _doctor, "say what is installed, which data and which kernels are there")
    for name in _others():
        commands.add_parser(name, help=_OTHERS[name][1], add_help=False)
    optional = [studies_parser] if studies_parser is not None else []
    for made in (run_parser, sweep_parser, measure_parser, commands.choices["doctor"], *optional):
        made.set_defaults(accepts=[name for action in made._actions for name in _names(action)])
    return parser


def _names(action: argparse.Action) -> Sequence[str]:
    return action.option_strings or [str(action.metavar)]


def _add_config_options(parser: argparse.ArgumentParser) -> None:
    """One option per field of `RunConfig`."""
    from poolnb.lab.config import RunConfig, defaults

    fields = {spec.name: spec for spec in dataclasses.fields(RunConfig)}
    for name, default in defaults().items():
        metadata = fields[name].metadata
        many = name == "pooler_options"
        shown = "none" if default in (None, {}) else default
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=str if many else _literal,
            nargs="+" if many else None,
            metavar="NAME=VALUE" if many else "X",
            default=argparse.SUPPRESS,
            help=f"{metadata['help']}: {metadata['rule'].accepts()} (default: {shown})",
        )


def _literal(text: str) -> Any:
    """A number or none if the text is one, else the text itself."""
    if text.lower() == "none":
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _options(words: Sequence[str]) -> dict[str, Any]:
    """`["beta=2", "semi_grad=true"]` or one JSON object, as a mapping."""
    from poolnb.lab.errors import ConfigError, shown

    if len(words) == 1 and words[0].lstrip().startswith("{"):
        options: dict[str, Any] = _literal(words[0])  # RunConfig says so if it is no mapping
        return options
    pairs = [word.partition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs):
        raise ConfigError(f"pooler_options is {shown(' '.join(words))}; accepted: NAME=VALUE ..., or one JSON object")
    options = {name: _literal(value) for name, _, value in pairs}
    if len(options) < len(pairs):
        raise ConfigError(f"pooler_options is {shown(' '.join(words))}; accepted: every NAME once")
    return options


def _run(arguments: argparse.Namespace) -> int:
    from poolnb.lab import RunConfig, run
    from poolnb.lab.files import WriteError
    from poolnb.lab.records import record_path

    given = {name: value for name, value in vars(arguments).items() if name in RunConfig.names()}
    if "pooler_options" in given:
        given["pooler_options"] = _options(given["pooler_options"])
    config = RunConfig.from_mapping(given)
    try:
        record = run(config, arguments.results, progress=_bar(arguments))
    except WriteError as error:
        if error.kept is None:
            print(error.record.to_json(), end="")
            _fail(f"{error}; it was printed instead")
        raise
    for when, values in record.summary.items():
        if values is not None:
            label = when.replace("_", " ")
            print(f"{label} (epoch {values['epoch']}): test accuracy {values['test_accuracy']:.4f}")
    print(f"record: {record_path(arguments.results, config)}")
    return 0


def _bar(arguments: argparse.Namespace) -> bool:
    """Whether to draw a progress bar: on a terminal, unless it is not wanted."""
    return sys.stderr.isatty() and not arguments.quiet


def _tell(report: Any, outcome: Any) -> None:
    """One line per finished run, for a log file."""
    from poolnb.lab.sweeps.forecast import in_words

    finished = report.before + report.done + len(report.failed)
    state = f"{outcome.kind}: {outcome.error}" if outcome.error else "done"
    left = "" if report.left is None else f" ({in_words(report.left)} left)"
    print(f"{finished}/{report.total} {outcome.task.config.name}: {state}{left}", flush=True)


def _foretell(forecast: Any, seconds: float) -> None:
    from poolnb.lab.sweeps.forecast import in_words

    workers = f"{forecast.workers} process{'es' * (forecast.workers > 1)}"
    print(f"this will take about {in_words(seconds)} in {workers}, by {forecast.source}", flush=True)


def _sweep(arguments: argparse.Namespace) -> int:
    from poolnb.lab.sweeps.sweep import read_sweep

    warnings.showwarning = lambda message, *rest, **more: print(f"poolnb: {message}", file=sys.stderr)
    spec = read_sweep(arguments.spec)
    results = arguments.results or Path("results") / spec.name
    executor = None
    if arguments.scheduler is not None:
        if arguments.workers is not None:
            _fail("--workers is for processes of this machine; with --scheduler the cluster has its own workers")
        from poolnb.lab.sweeps.scheduler import Scheduler

        executor = Scheduler(arguments.scheduler)
    return _do(spec.name, spec.configs, results, arguments, workers=arguments.workers, executor=executor)


def _do(name: str, configs: Any, results: Any, arguments: argparse.Namespace, **how: Any) -> int:
    """The runs of one sweep that are missing, told as they are done; the exit status."""
    from poolnb.lab.sweeps.processes import check_workers
    from poolnb.lab.sweeps.sweep import sweep

    if how["workers"] is not None:
        check_workers(how["workers"])
    print(f"{name}: {len(configs)} runs, records in {results}", flush=True)
    try:
        report = sweep(
            configs,
            results,
            fast=arguments.fast,
            retry_failed=arguments.retry_failed,
            progress=_bar(arguments),
            on_outcome=None if arguments.quiet or _bar(arguments) else _tell,
            on_forecast=None if arguments.quiet else _foretell,
            **how,
        )
    except KeyboardInterrupt:
        print("poolnb: stopped; started again, the sweep does what is missing", file=sys.stderr)
        return STOPPED
    missing = f", {len(report.missing)} missing" if report.missing else ""
    print(f"{report.before} were there, {report.done} done now, {len(report.failed)} failed{missing}")
    for kind, errors in (("failed", report.failed), ("missing", report.missing)):
        for name, error in errors.items():
            print(f"{kind}: {name}: {error}")
    if report.missing:
        print("started again, the sweep does what is missing")
    return 1 if report.failed or report.missing else 0


GPU_WORKERS = 4  # processes that share one GPU, of which one run leaves most idle


def _studies(arguments: argparse.Namespace) -> int:
    from poolnb.book.findings import studies, tuning
    from poolnb.lab.provenance import RESULTS
    from poolnb.lab.records import is_done, record_path
    from poolnb.lab.training import resolve_device

    arguments.fast = True
    workers, status = arguments.workers, 0
    if workers is None and resolve_device(arguments.device or "auto").type == "cuda":
        workers = GPU_WORKERS
    for name in studies.chosen(arguments.names):
        try:
            one = studies.study(name)
        except tuning.IncompleteError as error:
            print(f"{name}: left out: {error}", flush=True)
            status = 0 if arguments.list else 1
            continue
        configs, folder = one.on(arguments.device), RESULTS / one.folder
        if arguments.list:
            done = sum(is_done(record_path(folder, config)) for config in configs)
            print(f"{name}: {done} of {len(configs)} runs done: {one.sweep.description}")
            continue
        found = _do(name, configs, folder, arguments, workers=workers)
        if found == STOPPED:
            return STOPPED
        status = max(status, found)
    return status


def _measure(arguments: argparse.Namespace) -> int:
    from poolnb.lab.measurements.records import measure

    results = arguments.results or Path("results") / arguments.kind
    found = measure(arguments.kind, results, progress=_bar(arguments))
    print(f"{len(found)} measurements in {results}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from poolnb.doctor import report

    print(report())
    return 0
