"""Measurements: done once, whole or not there, and each measure checked against a plain computation."""

import math
import sys

import pytest
import torch
from torch import nn

from poolnb.cli import main
from poolnb.lab import data
from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError
from poolnb.lab.files import WriteError, write_result
from poolnb.lab.measurements import (
    alternatives,
    calls,
    gradients,
    large_batches,
    shift_consistency,
    test_pooling,
    training_cost,
)
from poolnb.lab.measurements import records as measurements
from poolnb.lab.measurements.records import Measurement, load_measurements, measure, path_of
from poolnb.lab.network import build
from poolnb.lab.training import evaluate, prepared, run

GRADIENTS = {"dataset": "digits", "limit": 256, "stages": [0, 1], "pooler": "max", "seed": 0}
SWAPPED = {"dataset": "digits", "limit": 256, "epochs": 2, "pooler": "stochastic", "seed": 0}


def few(count=96):
    train, _ = data.split(data.load("digits").train, 0.1, count)
    return train


# ---- files -----------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_measured_again(tmp_path, monkeypatch):
    first = measure("gradients", tmp_path, [GRADIENTS], progress=False)
    monkeypatch.setattr(gradients, "measure", lambda parameters: pytest.fail("measured again"))
    assert measure("gradients", tmp_path, [GRADIENTS], progress=False) == first == load_measurements(tmp_path)
    assert first[0].environment["versions"]["torch"] and first[0].hashes["data"] == data.load("digits").sha256


def test_two_measurements_are_equal_to_the_bit(tmp_path):
    for kind, parameters in (("gradients", GRADIENTS), ("test-pooling", SWAPPED)):
        one, two = (measure(kind, tmp_path / name, [parameters], progress=False)[0] for name in ("a", "b"))
        assert (one.parameters, one.values, one.hashes) == (two.parameters, two.values, two.hashes)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "poolnb-run/1"}'])
def test_a_foreign_file_is_named_and_left_out(tmp_path, text):
    kept = Measurement("gradients", {"seed": 1}, {})
    write_result(path_of(tmp_path, kept), kept, "measurement")
    (tmp_path / "other.json").write_text(text)
    with pytest.warns(UserWarning, match="left out: .*other.json is not a whole measurement"):
        assert load_measurements(tmp_path) == [kept]


def test_a_measurement_under_another_name_does_not_count_twice(tmp_path):
    kept = Measurement("gradients", {"seed": 1}, {})
    write_result(path_of(tmp_path, kept), kept, "measurement")
    (tmp_path / "copy.json").write_text(path_of(tmp_path, kept).read_text())
    with pytest.warns(UserWarning, match="its name belongs to another one"):
        assert load_measurements(tmp_path) == [kept]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import os

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gradients, "measure", lambda parameters: ({}, {}))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="cannot be written: No space left on device"):
        measure("gradients", tmp_path, [GRADIENTS], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_kind_that_is_not_known_is_refused(tmp_path, capsys):
    accepted = "gradients, test-pooling, shift-consistency, training-cost, alternatives, large-batches, calls"
    with pytest.raises(ConfigError, match=f"kind is 'gradient'; accepted: {accepted}"):
        measure("gradient", tmp_path)
    with pytest.raises(SystemExit):
        main(["measure", "gradient", "--results", str(tmp_path)])
    assert "kind is 'gradient'" in capsys.readouterr().err


def test_every_plan_can_be_carried_out_and_has_no_measurement_twice():
    for name in measurements.KINDS.values():
        plan = __import__(f"poolnb.lab.measurements.{name}", fromlist=["PLAN"]).PLAN
        assert len({path_of(".", Measurement(name, parameters, {})) for parameters in plan}) == len(plan) > 1


# ---- gradients -------------------------------------------------------------------------------------------------------


def test_a_batch_of_everything_is_the_full_gradient():
    model, samples = build(RunConfig(pooler="soft")), few()
    found = gradients.quality(model, samples, 0, (len(samples),))
    for part in ("all", "first"):
        assert found["96"][part]["cosine"] == pytest.approx(1, abs=1e-9)
        assert found["96"][part]["noise"] == pytest.approx(0, abs=1e-9)


def test_the_measures_are_those_of_a_plain_loop():
    torch.manual_seed(0)
    model, samples = build(RunConfig(pooler="max")), few()
    found = gradients.quality(model, samples, 3, (32,))
    images, labels = samples.batch(slice(None))

    def gradient(index):
        model.zero_grad()
        nn.CrossEntropyLoss()(model(images[index]), labels[index]).backward()
        return torch.cat([p.grad.flatten().double() for p in model.parameters()])

    order = torch.randperm(96, generator=torch.Generator().manual_seed(3))
    full, own = gradient(order), [gradient(batch) for batch in order.split(32)]
    torch.testing.assert_close(torch.stack(own).mean(0), full, atol=1e-7, rtol=1e-4)
    cosines = [float(g @ full / g.norm() / full.norm()) for g in own]
    noises = [float((g - full).norm() ** 2 / full.norm() ** 2) for g in own]
    assert found["32"]["all"]["cosine"] == pytest.approx(sum(cosines) / 3, rel=1e-5)
    assert found["32"]["all"]["noise"] == pytest.approx(sum(noises) / 3, rel=1e-5)
    assert found["length"]["all"] == pytest.approx(float(full.norm()), rel=1e-5)


def test_measuring_does_not_change_the_training():
    values, _ = gradients.measure(GRADIENTS)
    chosen = {name: GRADIENTS[name] for name in ("dataset", "limit", "pooler", "seed")}
    record = run(RunConfig(**chosen, epochs=1, validation=0.02), progress=False)
    assert [stage["train_loss"] for stage in values["stages"]][0] == pytest.approx(math.log(10), abs=0.05)
    with prepared(record.config) as job:
        job.train(progress=False, on_epoch=None)
        after = gradients.quality(job.model, job.samples["train"], 0)
    assert values["stages"][1] == after


# ---- pictures that move ----------------------------------------------------------------------------------------------


def test_consistency_counts_pairs_of_views():
    classes = torch.tensor([[1, 1, 2], [1, 2, 2], [1, 3, 1]])  # all pairs of the first picture, none, one of three
    assert shift_consistency.consistency(classes) == pytest.approx((1 + 0 + 1 / 3) / 3)


class _Corner(nn.Module):
    def forward(self, images):
        return images[..., 0, 0]


def test_a_mean_is_consistent_and_a_corner_is_not(monkeypatch):
    monkeypatch.setattr(shift_consistency, "MOVES", 2)
    images = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean = shift_consistency._classes(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), images)
    assert mean.shape == (4, 7) and shift_consistency.consistency(mean) == 1
    corner = shift_consistency._classes(_Corner(), images)
    assert torch.equal(corner[1], images[..., 0, -1].argmax(1)) and shift_consistency.consistency(corner) < 1


def test_the_accuracy_is_that_of_the_run():
    parameters = {"dataset": "digits", "limit": 256, "epochs": 10, "pooler": "max", "seed": 0}
    values, _ = shift_consistency.measure(parameters)
    assert values["accuracy"] == pytest.approx(
        run(RunConfig(**parameters), progress=False).summary["last"]["test_accuracy"]
    )
    assert 0.1 < values["consistency"] < 1


# ---- other poolers in the test ---------------------------------------------------------------------------------------


def test_the_network_s_own_pooler_gives_the_run_s_own_error():
    for pooler, way in (("stochastic", "weighted"), ("max", "max"), ("avg", "avg")):
        parameters = SWAPPED | {"pooler": pooler}
        values, _ = test_pooling.measure(parameters)
        record = run(RunConfig(**parameters), progress=False)
        assert values["errors"][way] == pytest.approx(1 - record.summary["last"]["test_accuracy"], abs=1e-12)
        assert len(set(values["errors"].values())) > 1


def test_sampling_in_the_test_draws():
    torch.manual_seed(0)
    config = RunConfig(pooler="stochastic")
    model, test = build(config), data.load("digits").test
    assert evaluate(model, test)[0] == evaluate(model, test)[0]
    model.pools = nn.ModuleList(test_pooling._Sampling(pool) for pool in model.pools)
    assert evaluate(model, test)[0] != evaluate(model, test)[0]


# ---- cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_the_cost_of_a_step_is_measured_for_every_pooler(monkeypatch, layout):
    monkeypatch.setattr(training_cost, "POOLERS", ["max", "soft"])
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    parameters = {"dataset": "digits", "batch_size": 64, "turns": 3, "layout": layout, "threads": 2, "seed": 0}
    values, _ = training_cost.measure(parameters)
    assert asked[-2:] == [2, torch.get_num_threads()]
    assert set(values["milliseconds"]) == set(values["kept"]) == {"max", "soft"}
    assert all(0 < value < 10_000 for value in values["milliseconds"].values())
    # The three maps before the pools (float32), at the least, are kept whatever the pooler.
    maps = 4 * 64 * (16 * 8 * 8 + 32 * 4 * 4 + 64 * 2 * 2)
    assert all(maps < kept < 10 * maps for kept in values["kept"].values())


def test_what_stands_in_the_place_of_a_pool_is_what_it_says():
    """The formula is softmax weighting, a strided convolution has its size, and without pools the maps keep theirs."""
    torch.manual_seed(0)
    outputs, sizes, shared = {}, {}, {"dataset": "digits", "batch_size": 8, "limit": 16, "device": "cpu"}
    for name, pooler in (
        ("soft", "soft"),
        (alternatives.FORMULA, "max"),
        (alternatives.STRIDED, "max"),
        (alternatives.NONE, "max"),
    ):
        with prepared(RunConfig(**shared, pooler=pooler)) as job:
            alternatives.change(job, name)
            images, _ = job.samples["train"].batch(torch.arange(8))
            outputs[name], sizes[name] = job.model(images), job.model.hidden.in_features
    torch.testing.assert_close(outputs[alternatives.FORMULA], outputs["soft"])
    assert sizes[alternatives.NONE] == 64 * 8 * 8 == 64 * sizes[alternatives.STRIDED]


def test_operations_are_counted_by_hand():
    parameters = {"dataset": "digits", "batch_size": 64, "turns": 1, "layout": "nchw", "threads": 1, "seed": 0}
    values, _ = alternatives.measure(parameters)
    convolutions = [(8 * 8, 1, 16), (4 * 4, 16, 32), (2 * 2, 32, 64)]
    once = [2 * pixels * 9 * i * o for pixels, i, o in convolutions] + [2 * 64 * 128, 2 * 128 * 10]
    # Forward, and backward for the weights and for the input; the images need no gradient.
    assert values["operations"]["max"] == 64 * (3 * sum(once) - once[0])
    assert values["operations"]["max"] == values["operations"][alternatives.FORMULA]
    assert (
        values["operations"][alternatives.STRIDED]
        < values["operations"]["max"]
        < values["operations"][alternatives.NONE]
    )


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_a_call_of_every_pooler_is_timed():
    values, _ = calls.measure({**calls.PLAN[0], "turns": 1})
    assert set(values["both"]) == {*training_cost.POOLERS, calls.TORCH}
    assert set(values["forward"]) == {*values["both"], calls.ITS_OP}
    assert all(value > 0 for way in ("forward", "both") for value in values[way].values())


# ---- large batches ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts page faults")
def test_new_memory_is_counted_in_pages():
    """A gradient of 32 MiB is never kept by the C library: every page of it is new in every step."""
    small, large = (
        large_batches.measure({**large_batches.PLAN[0], "batch": batch, "size": size, "huge_pages": False, "turns": 1})[
            0
        ]
        for batch, size in ((2, 4), (128, 32))
    )
    assert set(small["microseconds"]) == set(small["faults"]) == set(large_batches.POOLS)
    assert all(value > 0 for value in small["microseconds"].values())
    assert max(small["faults"].values()) < 2**25 / 4096 <= min(large["faults"].values())
