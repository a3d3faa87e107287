"""Training: one function for CPU and GPU, from a `RunConfig` to a `Record`."""

from __future__ import annotations

import functools
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from poolnb import native
from poolnb._machine import processor_name
from poolnb.lab import data, models
from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError, UserError, shown
from poolnb.lab.files import folder_of, prepare_folder
from poolnb.lab.network import build
from poolnb.lab.provenance import source_hash
from poolnb.lab.records import Curves, Record, summarise, write_record
from poolnb.lab.samples import Samples

EVALUATION_BATCH = 250  # on a CPU: its activations stay in the cache
EVALUATION_BATCH_CUDA = 5000
FEW_VALUES = 64  # a pooling parameter with no more values than this is recorded value by value
HISTOGRAM_BINS = 40
WARM_UP = 500  # steps of the linear schedule until the learning rate is reached; at most half of the run


class RunError(UserError, RuntimeError):
    """A run that could not be finished; its record has the status "failed" and this text."""


def run(
    config: RunConfig,
    results: str | os.PathLike[str] | int | None = None,
    progress: bool = True,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Record:
    """Train and test as `config` says, and return the record.

    `results` names the folder that keeps the record (None: it is kept nowhere). `progress` shows a bar on stderr.
    `on_epoch(epoch, values)` is called after every epoch with its entries of the curves, those that it has.

    Raises `ConfigError` or `DataError` before any training if the configuration does not fit this machine, its options
    do not fit the pooler, `results` cannot be written to, or data are missing. Raises `RunError` if training itself
    fails: a loss that is not finite, or an operator that raises; the record of the failed run is then in `results`.
    Raises `WriteError`, which holds the record and says where it was put instead, if it cannot be written to `results`.
    What only says something of the machine, as a lack of memory, is raised as it is and leaves no record.

    The state of torch's random generators and its number of threads are as before afterwards.
    """
    folder = None if folder_of(results) is None else prepare_folder(results)
    with prepared(config) as job:
        started, start = datetime.now(UTC), time.perf_counter()
        error: BaseException | None = None
        try:
            job.train(progress, on_epoch and _apart(on_epoch))
        except _CallerError as raised:
            raise raised.__cause__ or raised from None
        except _OF_THE_RUN as raised:
            if _is_of_the_machine(raised):
                raise
            error = raised
        timing = {
            "seconds": time.perf_counter() - start,
            "epochs": job.seconds,
            "started": started.isoformat(timespec="seconds"),
        }
        record = job.record(timing, error)
    if folder is not None:
        write_record(record, folder)
    if error is not None:
        raise RunError(f"run {config.name} failed: {record.error}") from error
    return record


class _CallerError(Exception):
    """An error of the caller's function, its cause, that is none of the run."""


def _apart(on_epoch: Callable[[int, dict[str, float]], None]) -> Callable[[int, dict[str, float]], None]:
    def told(epoch: int, values: dict[str, float]) -> None:
        try:
            on_epoch(epoch, values)
        except Exception as error:
            raise _CallerError from error

    return told


# What an operator or a loss raises on its data. A missing file or package, a lack of memory, Ctrl-C are none of these.
_OF_THE_RUN = (ArithmeticError, ValueError, IndexError, RuntimeError)
_OF_THE_MACHINE = (OSError, torch.OutOfMemoryError, torch.AcceleratorError, NotImplementedError, RecursionError)
_MACHINE_WORDS = ("alloc", "out of memory", "cuda", "cudnn", "cublas", "device-side", "new thread", "nccl")


def _is_of_the_machine(error: Exception) -> bool:
    """Whether `error` says something of this machine, not of the run: torch raises RuntimeError for most of it."""
    said = str(error).lower()
    return isinstance(error, _OF_THE_MACHINE) or (
        type(error) is RuntimeError and any(word in said for word in _MACHINE_WORDS)
    )


@contextmanager
def prepared(config: RunConfig) -> Iterator[Job]:
    """The job of `config`, ready to train: for what needs more than the record. Inside, torch is as in `run`."""
    device = resolve_device(config.device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _threads(config.threads), _deterministic(device):
        torch.manual_seed(config.seed)
        yield Job.prepare(config, device)


def resolve_device(name: str) -> torch.device:
    """The device that `name` (auto, cpu, cuda, cuda:N) means here. Raises `ConfigError` if there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError, OverflowError):  # no name of a device, or a number that is too large for one
        raise ConfigError(f"device is {shown(name)}; accepted: auto, cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {shown(name)}; accepted: auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {name!r}, but {torch.cuda.device_count()} CUDA devices are visible; accepted: auto, cpu"
        )
    return device


@dataclass
class Job:
    """The parts of one run, and what it has measured so far."""

    config: RunConfig
    model: nn.Module
    samples: dict[str, Samples]
    hashes: dict[str, str]
    device: torch.device
    trajectory: Curves  # the mean of each pooling parameter: before training, then after every epoch
    curves: Curves = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def prepare(cls, config: RunConfig, device: torch.device) -> Job:
        model = build(config).to(device)
        if len(data.DATASETS[config.dataset].shape) == 3:  # images: channels last
            model = model.to(memory_format=torch.channels_last)
        dataset = data.load(config.dataset)
        train, validation = data.split(dataset.train, config.validation, config.limit)
        hashes = {"sources": source_hash_in_use(), "data": dataset.sha256}
        trajectory = {name: [float(value.double().mean())] for name, value in models.pooling_parameters(model).items()}
        parts = {"train": train, "validation": validation, "test": dataset.test}
        on_device = {name: samples.to(device) for name, samples in parts.items()}
        return cls(config, model, on_device, hashes, device, trajectory)

    def train(self, progress: bool, on_epoch: Callable[[int, dict[str, float]], None] | None) -> None:
        from tqdm import tqdm  # not tqdm.auto: without ipywidgets it warns, with a path of this machine

        config = self.config
        shuffle = torch.Generator().manual_seed(config.seed)
        steps = math.ceil(len(self.samples["train"]) / config.batch_size)
        optimizer = _optimizer(config, self.model)
        schedule = _schedule(config, optimizer, config.epochs * steps)
        with tqdm(total=config.epochs * steps, desc=config.name, unit="step", disable=not progress) as bar:
            for epoch in range(1, config.epochs + 1):
                start = time.perf_counter()
                values = self._epoch(optimizer, schedule, shuffle, bar)
                if config.evaluates(epoch):
                    values |= self._evaluated()
                self.seconds.append(time.perf_counter() - start)
                if not math.isfinite(values["train_loss"]):
                    raise FloatingPointError(f"the training loss is {values['train_loss']} in epoch {epoch}")
                self._note(values)
                shown_part = next(part for part in ("validation", "test", "train") if f"{part}_accuracy" in values)
                bar.set_postfix_str(f"epoch {epoch}, {shown_part} accuracy {values[f'{shown_part}_accuracy']:.3f}")
                if on_epoch is not None:
                    on_epoch(epoch, values)

    def _epoch(
        self, optimizer: torch.optim.Optimizer, schedule: LambdaLR, shuffle: torch.Generator, bar: Any
    ) -> dict[str, float]:
        """Train on every sample once. Nothing is copied from the device before the epoch's end."""
        samples = self.samples["train"]
        count = len(samples)
        order = torch.randperm(count, generator=shuffle).to(self.device)
        loss_sum = torch.zeros((), device=self.device, dtype=torch.float64)
        correct = torch.zeros((), device=self.device, dtype=torch.int64)
        self.model.train()
        for index in order.split(self.config.batch_size):
            images, labels = samples.batch(index)
            scores = self.model(images)
            loss = F.cross_entropy(scores, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.detach() * len(index)
            correct += (scores.detach().argmax(1) == labels).sum()
            bar.update()
        return {"train_loss": float(loss_sum) / count, "train_accuracy": int(correct) / count}

    def _evaluated(self) -> dict[str, float]:
        """Loss and accuracy on the samples held out, of the parts that have any."""
        values = {}
        for name in self._held_out():
            loss_sum, correct = evaluate(self.model, self.samples[name])
            held_out = len(self.samples[name])
            values[f"{name}_loss"], values[f"{name}_accuracy"] = float(loss_sum) / held_out, int(correct) / held_out
        return values

    def _held_out(self) -> list[str]:
        return [part for part in ("validation", "test") if len(self.samples[part])]

    def _note(self, values: dict[str, float]) -> None:
        means = {name: float(p.double().mean()) for name, p in models.pooling_parameters(self.model).items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise FloatingPointError(f"the mean of {name} is {mean} after the epoch")
        evaluations = [f"{part}_{quantity}" for part in self._held_out() for quantity in ("loss", "accuracy")]
        for name in ("train_loss", "train_accuracy", *evaluations):
            value = values.get(name)
            # An evaluation loss may overflow while training goes on; JSON has no infinity.
            kept = None if value is None or not math.isfinite(value) else value
            self.curves.setdefault(name, []).append(kept)  # type: ignore[arg-type]
        for name, mean in means.items():
            self.trajectory[name].append(mean)

    def record(self, timing: dict[str, Any], error: BaseException | None) -> Record:
        failed = error is not None
        parameters = {} if failed else models.pooling_parameters(self.model)
        return Record(
            parameters=self.config.parameters,
            key=self.config.key,
            status="failed" if failed else "done",
            error=f"{type(error).__name__}: {error}" if failed else None,
            curves=self.curves,
            summary={} if failed else summarise(self.curves),
            pooling={name: describe_parameter(value, self.trajectory[name]) for name, value in parameters.items()},
            environment=environment(self.device),
            hashes=self.hashes,
            timing=timing,
        )


def _optimizer(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    pools = {id(p) for module in models.pooling_modules(model).values() for p in module.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if id(p) not in pools]},
        {
            "params": [p for p in model.parameters() if id(p) in pools],
            "lr": config.learning_rate * config.pool_learning_rate,
        },
    ]
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **shared)
    return torch.optim.Adam(groups, **shared)


def _schedule(config: RunConfig, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """The learning rate of each of the `steps` steps of a run, as a factor on the configuration's."""
    if config.schedule == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    warm_up = min(WARM_UP, steps // 2)

    def linear(step: int) -> float:
        return (step + 1) / (warm_up + 1) if step < warm_up else (steps - step) / (steps - warm_up)

    return LambdaLR(optimizer, linear)


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy (float64) and number of right answers of `model` in evaluation mode on `samples`."""
    model.eval()
    size = EVALUATION_BATCH if samples.labels.device.type == "cpu" else EVALUATION_BATCH_CUDA
    loss = torch.zeros((), device=samples.labels.device, dtype=torch.float64)
    correct = torch.zeros((), device=samples.labels.device, dtype=torch.int64)
    for start in range(0, len(samples), size):
        images, labels = samples.batch(slice(start, start + size))
        scores = model(images)
        loss += F.cross_entropy(scores, labels, reduction="sum")
        correct += (scores.argmax(1) == labels).sum()
    return loss, correct


def describe_parameter(value: Tensor, trajectory: list[float]) -> dict[str, Any]:
    """A learned pooling parameter in numbers.

    Always: `shape`, `mean`, `std` (of the population), `min`, `max`, and `trajectory`, the mean before training and
    after every epoch. With at most 64 values: `values`. With more: `histogram` (40 equal bins from min to max, as
    counts) and, for a shape (C, H, W), `mean_map`, the mean over the channels, (H, W).
    """
    flat = value.double().flatten()
    described: dict[str, Any] = {
        "shape": list(value.shape),
        "mean": float(flat.mean()),
        "std": float(flat.std(correction=0)),
        "min": float(flat.min()),
        "max": float(flat.max()),
        "trajectory": trajectory,
    }
    if len(flat) <= FEW_VALUES:
        return described | {"values": value.tolist()}
    low, high = described["min"], described["max"]
    counts = torch.histc(flat, HISTOGRAM_BINS, low, high) if high > low else torch.tensor([len(flat)])
    described["histogram"] = [int(count) for count in counts]
    if value.dim() == 3:
        described["mean_map"] = value.mean(0).tolist()
    return described


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device, threads and kernels of this process."""
    versions = {"python": platform.python_version()}
    for package in ("poolnb", "torch", "torchvision", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "threads": torch.get_num_threads(),
        "kernels": native.in_force(device.type),
    }


# Once per process: the modules in memory are the ones of its start, whatever happens to the files later.
source_hash_in_use = functools.lru_cache(maxsize=1)(source_hash)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _deterministic(device: torch.device) -> Any:
    """cuDNN's deterministic kernels on a GPU; the CPU's are."""
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    return nullcontext()
