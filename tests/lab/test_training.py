"""Training: the same bits twice, honest curves, early stopping that never looks at the test set, clear failures."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import poolnb
from poolnb.lab import data, models, training
from poolnb.lab.config import RunConfig
from poolnb.lab.errors import ConfigError
from poolnb.lab.network import build
from poolnb.lab.records import load_records, read_record, record_path, write_record
from poolnb.lab.training import RunError, run

SMALL = RunConfig(dataset="digits", epochs=2, limit=256, pooler="soft")
EXPLODING = replace(SMALL, optimizer="sgd", learning_rate=1e30)


def quick(**changes):
    return run(replace(SMALL, **changes), progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("pooler", poolnb.list_pools())
def test_every_pooler_trains_and_two_runs_are_equal_to_the_bit(pooler):
    first, second = quick(pooler=pooler, dropout=0.2), quick(pooler=pooler, dropout=0.2)
    assert first.content() == second.content()
    assert all(len(curve) == 2 and all(map(math.isfinite, curve)) for curve in first.curves.values())


def test_what_happened_before_does_not_change_a_run():
    expected = quick()
    torch.rand(7)
    torch.set_num_threads(1)
    assert quick().content() == expected.content()


def test_a_run_leaves_torch_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads()
    quick(threads=before + 1, epochs=1, limit=64)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("pooler", ["max", "tdgs"])
def test_a_short_run_is_the_beginning_of_a_long_one_to_the_bit(pooler):
    long, short = quick(pooler=pooler, epochs=4, dropout=0.1), quick(pooler=pooler, epochs=2, dropout=0.1)
    assert long.first(2).content() == replace(short, pooling={}).content()
    assert long.first(4) == long
    for epochs in (0, 5):
        with pytest.raises(ValueError, match="accepted: 1 to 4"):
            long.first(epochs)


def test_fewer_evaluations_leave_the_run_as_it_is(tmp_path):
    often, seldom = quick(epochs=5, dropout=0.1), quick(epochs=5, dropout=0.1, evaluate_every=2)
    assert seldom.key != often.key
    assert seldom.pooling == often.pooling and seldom.summary["last"] == often.summary["last"]
    for name, curve in often.curves.items():
        evaluated = range(1, 6) if name.startswith("train_") else (2, 4, 5)
        assert seldom.curves[name] == [one if epoch in evaluated else None for epoch, one in enumerate(curve, 1)]
    accuracies = {epoch: often.curves["validation_accuracy"][epoch - 1] for epoch in (2, 4, 5)}
    assert seldom.summary["early_stopped"]["epoch"] == max(accuracies, key=accuracies.get)
    assert seldom.first(2).summary["last"] == often.first(2).summary["last"]
    with pytest.raises(ValueError, match="accepted: multiples of 2, as evaluated"):
        seldom.first(3)
    assert read_record(write_record(seldom, tmp_path)) == seldom


def test_a_callback_gets_what_an_epoch_has_measured():
    seen = []
    run(replace(SMALL, epochs=3, evaluate_every=2), progress=False, on_epoch=lambda epoch, values: seen.append(values))
    assert ["test_accuracy" in values for values in seen] == [False, True, True]


def test_seeds_give_different_runs():
    assert quick(seed=1).curves["train_loss"] != quick(seed=2).curves["train_loss"]


def test_it_learns():
    record = quick(epochs=15, limit=None)
    assert record.summary["last"]["test_accuracy"] > 0.85
    assert record.curves["train_loss"][-1] < 0.3 * record.curves["train_loss"][0]


def test_the_first_epoch_is_what_a_plain_loop_gives():
    """An independent loop in the simplest PyTorch: same seed, same order of the samples, no channels_last."""
    config = replace(SMALL, epochs=1, optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=1e-3)
    record = run(config, progress=False)
    torch.manual_seed(config.seed)
    model = build(config).to(memory_format=torch.contiguous_format)
    dataset = data.load("digits")
    train, _ = data.split(dataset.train, config.validation, config.limit)
    images = (train.pixels.double() / 16).permute(0, 3, 1, 2).float().contiguous()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5, weight_decay=1e-3)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
    total = 0.0
    for start in range(0, len(train), config.batch_size):
        batch = order[start : start + config.batch_size]
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(images[batch]), train.labels[batch])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    assert record.curves["train_loss"][0] == pytest.approx(total / len(train), rel=1e-5)
    test = (dataset.test.pixels.double() / 16).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        scores = model.eval()(test)
    assert record.curves["test_loss"][0] == pytest.approx(
        nn.CrossEntropyLoss()(scores, dataset.test.labels).item(), rel=1e-5
    )
    right = (scores.argmax(1) == dataset.test.labels).sum().item()
    assert record.curves["test_accuracy"][0] == pytest.approx(right / len(dataset.test), abs=1.5 / len(dataset.test))


def test_with_one_seed_all_poolers_start_from_the_same_weights():
    weights = []
    for pooler in poolnb.list_pools():
        torch.manual_seed(3)
        model = build(replace(SMALL, pooler=pooler))
        weights.append({name: value for name, value in model.named_parameters() if not name.startswith("pools.")})
    for other in weights[1:]:
        assert other.keys() == weights[0].keys()
        assert all(torch.equal(other[name], weights[0][name]) for name in other)


@pytest.mark.parametrize(("dataset", "features"), [("digits", 64), ("mnist", 576), ("cifar10", 1024)])
def test_the_network_is_that_of_the_recipe(dataset, features):
    model = build(RunConfig(dataset=dataset, pooler="max"))
    channels = data.DATASETS[dataset].shape[0]
    convs = [(channels, 16), (16, 32), (32, 64)]
    expected = sum(9 * i * o + o for i, o in convs) + features * 128 + 128 + 128 * 10 + 10
    assert sum(value.numel() for value in model.parameters()) == expected
    assert model(torch.rand(2, *data.DATASETS[dataset].shape)).shape == (2, 10)


def test_early_stopping_takes_the_first_best_validation_epoch():
    curves = {"validation_accuracy": [0.5, 0.8, 0.8, 0.7], "test_accuracy": [0.1, 0.2, 0.9, 0.95]}
    summary = training.summarise(curves)
    assert summary["early_stopped"] == {"epoch": 2, "validation_accuracy": 0.8, "test_accuracy": 0.2}
    assert summary["last"]["epoch"] == 4 and summary["last"]["test_accuracy"] == 0.95


def test_without_validation_there_is_no_early_stopping():
    record = quick(validation=0)
    assert record.summary["early_stopped"] is None
    assert set(record.curves) == {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}


class Scaled(nn.Module):
    """A max pool with one learned factor per channel: something to record."""

    def __init__(self, channels, size):
        super().__init__()
        self.few = nn.Parameter(torch.ones(channels, 1, 1))
        self.many = nn.Parameter(torch.zeros(channels, *size))

    def forward(self, x):
        return nn.functional.max_pool2d(x, 2) * self.few + self.many


def test_learned_pooling_parameters_are_recorded(monkeypatch, tmp_path):
    monkeypatch.setitem(models.MODELS, "scaled", lambda shape, _, dropout: models.Recipe(shape, Scaled, dropout))
    record = run(replace(SMALL, model="scaled"), tmp_path, progress=False)
    assert set(record.pooling) == {f"pool{n}.{name}" for n in (1, 2, 3) for name in ("few", "many")}
    few, many = record.pooling["pool1.few"], record.pooling["pool1.many"]
    assert few["shape"] == [16, 1, 1] and torch.tensor(few["values"]).mean() == pytest.approx(few["mean"])
    assert few["trajectory"][0] == 1 and len(few["trajectory"]) == 3 and few["trajectory"][-1] == few["mean"]
    assert few["min"] < few["mean"] < few["max"]
    assert many["shape"] == [16, 4, 4] and sum(many["histogram"]) == 256 and "values" not in many
    assert torch.tensor(many["mean_map"]).shape == (4, 4)
    assert torch.tensor(many["mean_map"]).mean() == pytest.approx(many["mean"])
    assert read_record(record_path(tmp_path, record.config)) == record


def test_a_loss_that_is_not_finite_ends_the_run_and_is_recorded(tmp_path):
    with pytest.raises(RunError, match=r"failed: FloatingPointError: the training loss is (nan|inf) in epoch \d"):
        run(EXPLODING, tmp_path, progress=False)
    assert load_records(tmp_path) == []
    (failed,) = load_records(tmp_path, failed=True)
    assert failed.status == "failed" and "training loss" in failed.error and failed.config == EXPLODING


def test_an_operator_that_raises_ends_the_run_and_is_recorded(monkeypatch, tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("this pooler is broken")

    monkeypatch.setitem(models.MODELS, "broken", lambda shape, *_: models.Recipe(shape, lambda *_: Broken()))
    with pytest.raises(RunError, match="RuntimeError: this pooler is broken"):
        run(replace(SMALL, model="broken"), tmp_path, progress=False)
    (failed,) = load_records(tmp_path, failed=True)
    assert failed.error == "RuntimeError: this pooler is broken"


def test_options_that_the_pooler_does_not_have_are_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match="pooler_options is .*'beat'.*not accepted by 'soft'.*beta"):
        run(replace(SMALL, pooler_options={"beat": 2.0}), tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_results_folder_that_cannot_be_written_to_is_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(data, "load", lambda name: pytest.fail("went on to read data"))
    with pytest.raises(ConfigError, match="results is .*cannot be written to"):
        run(SMALL, tmp_path / "file" / "folder", progress=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="device is 'cuda', but 0 CUDA devices are visible"):
        quick(device="cuda")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_larger_data_sets_train(name):
    if data.missing_files(name):
        pytest.skip(f"{name} is not there: set POOLNB_DATA to a folder that holds {data.DATASETS[name].folder}")
    record = quick(dataset=name, epochs=1, limit=1280, pooler="max")
    chance = math.log(10)
    assert record.curves["train_loss"][0] < chance + 0.01 and record.curves["test_accuracy"][0] > 0.12
    assert record.hashes["data"] == data.load(name).sha256


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_nearly_the_same_curves():
    cpu, gpu = quick(device="cpu"), quick(device="cuda")
    assert gpu.environment["device"] == "cuda" and gpu.key == cpu.key
    assert gpu.curves["train_loss"] == pytest.approx(cpu.curves["train_loss"], rel=1e-2)


def rates_of(**changes):
    """The learning rates of all steps: of the network, and of the pool's parameters."""
    config = replace(SMALL, **changes)
    with training.prepared(config) as job:
        steps = config.epochs * math.ceil(len(job.samples["train"]) / config.batch_size)
        optimizer = training._optimizer(config, job.model)
        schedule = training._schedule(config, optimizer, steps)
        rates = []
        for _ in range(steps):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
    return rates


def test_the_linear_schedule_rises_for_500_steps_and_falls_to_nothing():
    rates = [rate for rate, _ in rates_of(schedule="linear", learning_rate=0.5, epochs=300)]
    assert rates[0] == pytest.approx(0.5 / 501) and rates[499] == pytest.approx(0.5 * 500 / 501) and rates[500] == 0.5
    assert rates[-1] == pytest.approx(0.5 / (len(rates) - 500))
    falls = [a - b for a, b in zip(rates[500:], rates[501:], strict=False)]
    assert max(falls) == pytest.approx(min(falls))


def test_a_short_run_warms_up_for_at_most_half_of_it():
    rates = [rate for rate, _ in rates_of(schedule="linear", learning_rate=1.0)]
    assert max(rates) == rates[len(rates) // 2] == 1.0


def test_pooling_parameters_have_a_learning_rate_of_their_own():
    assert rates_of(pooler="auto", learning_rate=0.1, pool_learning_rate=30)[0] == pytest.approx([0.1, 3.0])
    slow, fast = (quick(pooler="auto", pool_learning_rate=factor).pooling["pool1.alpha"] for factor in (1, 30))
    assert abs(fast["mean"]) > 5 * abs(slow["mean"])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_pooling_parameters_stay_as_they_start_at_a_factor_of_0(optimizer):
    """The temperatures of TDGS, fixed at 1; everything else is trained."""
    fixed = {"pooler_options": {"init": 1.0, "jitter": 0.0}, "pool_learning_rate": 0, "weight_decay": 0.01}
    rate = {"adam": 1e-3, "sgd": 0.1}[optimizer]
    record = quick(pooler="tdgs", optimizer=optimizer, learning_rate=rate, **fixed)
    for described in record.pooling.values():
        assert (described["min"], described["max"]) == (1.0, 1.0) and set(described["trajectory"]) == {1.0}
    assert record.curves["train_loss"][-1] < record.curves["train_loss"][0]


def test_a_factor_without_pooling_parameters_is_refused():
    with pytest.raises(ConfigError, match="pool_learning_rate is 30.0, but 'soft' learns nothing; accepted here: 1"):
        quick(pool_learning_rate=30)


def test_a_run_whose_learning_rate_falls_has_no_beginning_of_its_own():
    record = quick(schedule="linear")
    assert record.first(2) == record
    with pytest.raises(ValueError, match="epochs is 1; accepted: 2, since the learning rate falls by then"):
        record.first(1)


def test_the_record_says_which_kernels_were_in_force():
    from poolnb import native

    with native.disabled():
        assert quick().environment["kernels"] == {"set": "pytorch", "library": None}
    if native.available():
        kernels = quick().environment["kernels"]
        assert kernels["set"] == "compiled" and len(kernels["library"]) == 64


def test_a_pooling_parameter_that_is_not_finite_fails_the_run(monkeypatch):
    with training.prepared(replace(SMALL, pooler="gem")) as job:
        with torch.no_grad():
            next(job.model.pools[0].parameters()).fill_(math.inf)
        with pytest.raises(FloatingPointError, match="the mean of pool1.p is inf"):
            job._note({"test_accuracy": 0.5})
