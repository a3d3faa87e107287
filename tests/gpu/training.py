"""What the recipe's training costs on one device: alone and with several runs at once, with CUDA graphs and without.

Every process trains the same network on samples of CIFAR-10's size; where the data are not here their numbers are made
up, which changes no time. They start each measurement together. One JSON line per measurement, as soon as it is known:
seconds per step (the median of the processes), and seconds per run of the recipe's 25 epochs, training steps alone.

In a captured step the seed of a sampled pooler is a constant: it draws the same in every step. That costs what new
draws cost, and is no way to train.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from poolnb.lab import RunConfig, data, training
from poolnb.lab.network import build

POOLERS = ("max", "soft", "tdgs")
RECIPE = RunConfig(dataset="cifar10", epochs=25, seed=0)
SAMPLES = 45_000  # of CIFAR-10, without those held out
WARM_UP = 5  # steps


def samples(device: torch.device, steps: int) -> data.Samples:
    count, info = steps * RECIPE.batch_size, data.DATASETS[RECIPE.dataset]
    if data.missing_files(RECIPE.dataset):
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (count, *info.shape[1:], info.shape[0]), generator=generator, dtype=torch.uint8)
        made_up = data.Samples(pixels, torch.randint(data.CLASSES, (count,), generator=generator), info.largest)
        return made_up.to(device)
    return data.load(RECIPE.dataset).train.subset(torch.arange(count)).to(device)


def ready(pooler: str, graph: bool, device: torch.device, shown: data.Samples) -> Callable[[int], Any]:
    """A training step, of its number: what `poolnb.lab.training` does with one batch."""
    config = replace(RECIPE, pooler=pooler)
    model = build(config).to(device).to(memory_format=torch.channels_last).train()
    optimizer = training._optimizer(config, model)
    index = torch.arange(config.batch_size, device=device)

    def step() -> None:
        images, labels = shown.batch(index)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def numbered(number: int) -> None:
        first = number * config.batch_size % len(shown)
        index.copy_(torch.arange(first, first + config.batch_size, device=device))
        (captured.replay if captured else step)()

    captured = None
    if graph:
        for group in optimizer.param_groups:
            group["capturable"] = True
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # as torch asks for, before a capture
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step()
    return numbered


def work(number: int, device: str, plan: list[Any], steps: int, together: Any, found: Any) -> None:
    """The life of one process: every measurement that it takes part in, and waiting for the others in between."""
    try:
        torch.set_num_threads(1)
        place = torch.device(device)
        shown = samples(place, max(steps, WARM_UP))
        for measurement in plan:
            taking_part = number < measurement["at_once"]
            if taking_part:
                step = ready(measurement["pooler"], measurement["graph"], place, shown)
                passed(step, WARM_UP, place)
            together.wait()
            if taking_part:
                found.put(passed(step, steps, place) / steps)
            together.wait()
    except threading.BrokenBarrierError:  # another process has failed, and said why
        pass
    except Exception:
        traceback.print_exc()
        together.abort()
        found.put(None)


def passed(step: Callable[[int], Any], steps: int, device: torch.device) -> float:
    began = time.perf_counter()
    for number in range(steps):
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure training.")
    parser.add_argument("results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    graphs = (False, True) if arguments.device == "cuda" else (False,)
    plan = [{"pooler": p, "graph": g, "at_once": n} for n in arguments.at_once for g in graphs for p in POOLERS]
    context, most = multiprocessing.get_context("spawn"), max(arguments.at_once)
    together, found = context.Barrier(most), context.Queue()
    rest = (arguments.device, plan, arguments.steps, together, found)
    processes = [context.Process(target=work, args=(n, *rest), daemon=True) for n in range(most)]
    for process in processes:
        process.start()
    with open(arguments.results, "w", buffering=1) as file:
        for measurement in plan:
            seconds = [found.get() for _ in range(measurement["at_once"])]
            if None in seconds:
                return 1
            line = measurement | seconds_of(statistics.median(seconds))
            file.write(json.dumps(line) + "\n")
            print(line, flush=True)
    for process in processes:
        process.join()
    return 0


def seconds_of(step: float) -> dict[str, float]:
    steps = RECIPE.epochs * math.ceil(SAMPLES / RECIPE.batch_size)
    return {"seconds_per_step": round(step, 6), "seconds_per_run": round(step * steps, 1)}


if __name__ == "__main__":
    sys.exit(main())
