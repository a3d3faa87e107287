"""`RunConfig`: what it accepts, what it refuses and how it says so, and when two configurations are one run."""

import dataclasses
import inspect
import json

import pytest
import torch

import poolnb
from poolnb.lab.config import RunConfig, config_from_notebook, defaults
from poolnb.lab.errors import ConfigError
from poolnb.lab.network import build
from poolnb.lab.provenance import RESULTS
from poolnb.registry import pool_class


def test_every_field_has_a_help_text_a_rule_and_a_default_that_its_rule_accepts():
    for spec in dataclasses.fields(RunConfig):
        assert spec.metadata["help"]
        assert spec.metadata["rule"].accepts()
        assert spec.metadata["rule"].parse(defaults()[spec.name]) == defaults()[spec.name]


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("dataset", "imagenet", "digits, mnist, cifar10"),
        ("pooler", "maximum", "max"),
        ("pooler_options", [1, 2], "mapping"),
        ("pooler_options", '{"beta": ', "mapping"),
        ("pooler_options", {"beta": float("nan")}, "mapping"),
        ("model", "vgg", "recipe"),
        ("seed", 2**64, "2^64"),
        ("seed", -(2**63) - 1, "2^64"),
        ("epochs", 2**63, ">= 1"),
        ("limit", 2**70, ">= 1"),
        ("seed", 1.5, "whole number"),
        ("seed", True, "whole number"),
        ("epochs", 0, ">= 1"),
        ("epochs", "many", ">= 1"),
        ("learning_rate", 0, "> 0"),
        ("learning_rate", float("nan"), "> 0"),
        ("learning_rate", float("inf"), "finite"),
        ("optimizer", "rmsprop", "adam, sgd"),
        ("batch_size", 0, ">= 1"),
        ("momentum", 1.0, "< 1"),
        ("weight_decay", -1e-4, ">= 0"),
        ("dropout", 1, "< 1"),
        ("validation", 1.0, "< 1"),
        ("limit", 0, "none"),
        ("device", "tpu", "auto, cpu, cuda"),
        ("device", "cpu:1", "auto, cpu, cuda"),
        ("device", 3, "auto, cpu, cuda"),
        ("threads", 0, ">= 1"),
    ],
)
def test_a_value_that_is_not_accepted_is_named_with_what_is(name, value, accepted):
    with pytest.raises(ConfigError) as caught:
        RunConfig(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is {value!r}; accepted: ")
    assert accepted in message


def test_momentum_without_sgd_is_refused():
    with pytest.raises(ConfigError, match="momentum is 0.9, but only the optimizer 'sgd'"):
        RunConfig(momentum=0.9)
    assert RunConfig(momentum=0.9, optimizer="sgd").momentum == 0.9


def test_values_are_cleaned():
    config = RunConfig(learning_rate=1, seed=2.0, pooler_options='{"beta": 2}', limit=None, threads=None)
    assert isinstance(config.learning_rate, float) and isinstance(config.seed, int)
    assert config.pooler_options == {"beta": 2}
    assert json.loads(json.dumps(config.parameters)) == config.parameters


def test_unknown_names_are_refused_with_the_accepted_ones():
    with pytest.raises(ConfigError, match="unknown parameters poler, lr; accepted: dataset, pooler, pooler_options"):
        RunConfig.from_mapping({"poler": "max", "lr": 1, "seed": 1})


def test_the_key_tells_runs_apart_but_not_where_they_are_carried_out():
    base = RunConfig()
    assert RunConfig(threads=2, device="cpu").key == base.key
    others = [RunConfig(seed=1), RunConfig(pooler="max"), RunConfig(limit=10), RunConfig(pooler_options={"beta": 2.0})]
    assert len({base.key, *(other.key for other in others)}) == 1 + len(others)
    assert RunConfig.from_mapping(base.parameters).key == base.key


def test_the_key_does_not_depend_on_the_order_of_options():
    one = RunConfig(pooler_options={"beta": 2.0, "semi_grad": True})
    other = RunConfig(pooler_options={"semi_grad": True, "beta": 2.0})
    assert one.key == other.key


def test_keys_of_committed_records_stay_what_they_are():
    """A changed default, or a changed way of hashing, would orphan every record there is."""
    assert RunConfig().key == "44136fa355b3"
    assert RunConfig(dataset="cifar10", pooler="max", epochs=25).key == "499b3b8e2676"


def test_keys_of_all_committed_records_stay_what_they_are():
    files = [path for path in RESULTS.rglob("*.json") if b'"poolnb-run/2"' in path.read_bytes()]
    assert len(files) > 300
    for path in files:
        values = json.loads(path.read_text())
        config = RunConfig.from_mapping(values["parameters"])
        assert config.key == values["key"] and path.name == f"{config.name}.json"


@pytest.mark.parametrize("pooler", poolnb.list_pools())
def test_an_option_that_is_the_default_makes_no_other_run(pooler):
    plain = RunConfig(pooler=pooler)
    for name, parameter in inspect.signature(pool_class(pooler)).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            continue
        for value in spellings(parameter.default):
            assert RunConfig(pooler=pooler, pooler_options={name: value}).name == plain.name, (name, value)


def spellings(value):
    """The ways in which a number, or a size in two dimensions, is written."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [value]
    whole = [int(value), float(value)] if float(value).is_integer() else [value]
    return [*whole, *([(value, value), [value, value]] if isinstance(value, int) and value < 2 else [])]


@pytest.mark.parametrize(
    ("pooler", "one", "other"),
    [
        ("soft", {"beta": 2}, {"beta": 2.0}),
        ("soft", {"beta": 0}, {"beta": -0.0}),
        ("soft", {"beta": 2}, {"semi_grad": False, "beta": 2, "padding": [0, 0]}),
        ("max", {"kernel_size": 3, "padding": 1}, {"padding": (1, 1), "kernel_size": [3.0, 3]}),
        ("tree", {"n_leaves": 2}, {"n_leaves": 2.0}),
        ("tdgs", {"init": 2, "hard": False}, {"hard": False, "init": 2.0, "tau": 1}),
    ],
)
def test_one_run_has_one_key_however_its_options_are_spelt(pooler, one, other):
    first, second = (RunConfig(pooler=pooler, pooler_options=options) for options in (one, other))
    assert first.name == second.name != RunConfig(pooler=pooler).name
    assert RunConfig.from_mapping(json.loads(json.dumps(second.parameters))).name == first.name
    build(first), build(second)


def test_other_options_make_another_run():
    kinds = [
        {},
        {"beta": 2},
        {"beta": 3},
        {"semi_grad": True},
        {"padding": 1},
        {"padding": [1, 0]},
        {"ceil_mode": True},
    ]
    assert len({RunConfig(pooler_options=options).key for options in kinds}) == len(kinds)


@pytest.mark.parametrize("seed", [2**53 + 1, 1764198000123456789, 2**64 - 1, str(2**53 + 1), -1, -(2**63)])
def test_a_seed_may_be_what_torch_takes_with_all_its_digits(seed):
    drawn = torch.rand(3, generator=torch.Generator().manual_seed(int(seed)))
    config = RunConfig(seed=seed)
    assert torch.equal(torch.rand(3, generator=torch.Generator().manual_seed(config.seed)), drawn)
    assert config.seed == int(seed) % 2**64 and f"-seed{config.seed}-" in config.name
    assert RunConfig.from_mapping(json.loads(json.dumps(config.parameters))) == config


@pytest.mark.parametrize("none", [None, "none", "None", "null"])
def test_none_may_come_as_text(none):
    config = RunConfig(limit=none, threads=none, pooler_options=none)
    assert (config.limit, config.threads, config.pooler_options) == (None, None, {})


def test_numbers_may_come_as_text():
    assert RunConfig(learning_rate="0.001", epochs="10", dropout="0") == RunConfig()


def notebook(*cells, **values):
    return {"In": ["", *cells], "config_from_notebook": config_from_notebook, **values}


def test_notebook_parameters_are_read_from_its_cells():
    cells = ['pooler = "max"\nseed = 0  # a comment', "# Parameters\nseed = 7", "import numpy as np\nx = 3"]
    config = config_from_notebook(notebook(*cells, pooler="max", seed=7, x=3))
    assert config == RunConfig(pooler="max", seed=7)


@pytest.mark.parametrize("injected", ["sed = 7", "learning_rates = [0.1]", 'own = {"a": 1}', 'rate = float("inf")'])
def test_a_parameter_that_the_notebook_does_not_have_is_refused(injected):
    name = injected.split(" ")[0]
    with pytest.raises(ConfigError, match=f"unknown parameter {name}; accepted: dataset, .*threads, results"):
        config_from_notebook(notebook("seed = 0", f"# Parameters\n{injected}", seed=0), extra=["results"])


def test_other_cells_may_be_run_before_the_check_is_repeated():
    cells = ["seed = 0", "%matplotlib inline", "part = [n for n in range(3)]", "total = sum(part)"]
    assert config_from_notebook(notebook(*cells, seed=0, total=3)) == RunConfig()
