"""`RunConfig`: the one schema of a run.

The command line's options, the notebook's parameter check and the sweep files all read the fields below: their names,
defaults, accepted values and help texts are written here and nowhere else.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from poolnb.lab.data import DATASETS
from poolnb.lab.errors import ConfigError, shown
from poolnb.lab.models import MODELS, POOLERS
from poolnb.lab.options import chosen, spelt


@dataclass(frozen=True)
class Rule:
    """How one parameter is read: `parse` returns the clean value or raises; `accepts()` says what it takes."""

    parse: Callable[[Any], Any]
    accepts: Callable[[], str]


LARGEST = 2**63 - 1  # what torch takes for a number of things


def _integer(minimum: int, none: str = "", maximum: int = LARGEST) -> Rule:
    def parse(value: Any) -> int | None:
        if none and _is_none(value):
            return None
        number = _whole(value)
        if not minimum <= number <= maximum:
            raise ValueError
        return number

    bounds = f"a whole number >= {minimum}" + (f" and <= {maximum}" if maximum < LARGEST else "")
    return Rule(parse, lambda: bounds + (f", or none ({none})" if none else ""))


def _whole(value: Any) -> int:
    """The whole number that `value` is or spells, with all its digits. Raises ValueError for any other value."""
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    number = float(value) if isinstance(value, str) else value
    if int(number) != number:
        raise ValueError
    return int(number)


def _is_none(value: Any) -> bool:
    """None, or the text that shells and papermill make of it."""
    return value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null"))


def _parse_seed(value: Any) -> int:
    """The seed as torch counts: a negative one is counted from 2^64 downwards."""
    number = _whole(value)
    if not -(2**63) <= number < 2**64:
        raise ValueError
    return number % 2**64


def _number(low: float, high: float = math.inf, *, open_low: bool = False) -> Rule:
    """A number in [low, high), or in (low, high) with `open_low`."""

    def parse(value: Any) -> float:
        number = float(value)
        if isinstance(value, bool) or not low <= number < high or (open_low and number == low):
            raise ValueError
        return number

    bound = f"> {low:g}" if open_low else f">= {low:g}"
    return Rule(parse, lambda: f"a finite number {bound}" + (f" and < {high:g}" if high < math.inf else ""))


def _choice(names: Callable[[], Iterable[str]]) -> Rule:
    def parse(value: Any) -> str:
        if value not in list(names()):
            raise ValueError
        return str(value)

    return Rule(parse, lambda: ", ".join(names()))


def _parse_device(value: Any) -> str:
    kind, colon, index = value.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and (kind != "cuda" or not index.isdigit())):
        raise ValueError
    return str(value)


def _parse_options(value: Any) -> dict[str, Any]:
    if _is_none(value):
        return {}
    options = json.loads(value) if isinstance(value, str) else dict(value)
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ValueError
    plain: dict[str, Any] = json.loads(json.dumps(options, allow_nan=False))
    return plain


def _dims(dataset: str) -> int:
    from poolnb.lab.data import DATASETS

    return len(DATASETS[dataset].shape) - 1


def _parameter(default: Any, rule: Rule, text: str, *, identity: bool = True) -> Any:
    """A field of `RunConfig`. Without `identity` it says how a run is carried out, not which run it is."""
    metadata = {"rule": rule, "help": text, "identity": identity}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_SEED = Rule(_parse_seed, lambda: "a whole number that torch.manual_seed takes, from -2^63 to 2^64 - 1")
_OPTIONS = Rule(_parse_options, lambda: 'a mapping of names to JSON values, such as {"beta": 2.0}')


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines one training run. Raises `ConfigError` for a value that is not accepted.

    Two configurations with the same `key` are the same run. `device` and `threads` are no part of the key: they say
    where and how a run is carried out, and the record notes them.

    A default below never changes once records exist: the key hashes only what differs from the defaults, so that a
    parameter added later leaves the keys of older records as they are.
    """

    dataset: str = _parameter("digits", _choice(lambda: DATASETS), "data set to train on")
    pooler: str = _parameter(
        "soft", _choice(lambda: POOLERS), "pooling operator, a name of poolnb.list_pools(); strided: none"
    )
    pooler_options: dict[str, Any] = _parameter({}, _OPTIONS, "own arguments of the pooling operator")
    model: str = _parameter("recipe", _choice(lambda: MODELS), "network")
    seed: int = _parameter(0, _SEED, "seed of weights, order of the samples and sampled pooling")
    epochs: int = _parameter(10, _integer(1), "passes over the training samples")
    learning_rate: float = _parameter(1e-3, _number(0, open_low=True), "step size of the optimiser")
    optimizer: str = _parameter("adam", _choice(lambda: ("adam", "sgd")), "optimiser")
    batch_size: int = _parameter(64, _integer(1), "training samples per step")
    momentum: float = _parameter(0.0, _number(0, 1), "momentum of sgd")
    weight_decay: float = _parameter(0.0, _number(0), "L2 penalty added to the gradient")
    dropout: float = _parameter(0.0, _number(0, 1), "probability of dropping an input of a fully connected layer")
    validation: float = _parameter(0.1, _number(0, 1), "share of the training set held out for early stopping; 0: none")
    limit: int | None = _parameter(None, _integer(1, "all of them"), "use only so many training samples")
    schedule: str = _parameter(
        "constant",
        _choice(lambda: ("constant", "linear")),
        "learning rate over the steps; linear: 500 steps up to it, then down to 0",
    )
    pool_learning_rate: float = _parameter(
        1.0, _number(0), "factor on the learning rate of the pooling parameters; 0: they stay as they start"
    )
    evaluate_every: int = _parameter(
        1, _integer(1), "epochs from one evaluation on validation and test samples to the next; the last has one"
    )
    device: str = _parameter(
        "auto",
        Rule(_parse_device, lambda: "auto, cpu, cuda, cuda:N"),
        "where to train; auto: cuda if there",
        identity=False,
    )
    threads: int | None = _parameter(
        1,
        _integer(1, "torch's own choice", 4096),
        "CPU threads; another number may change the last bits",
        identity=False,
    )

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            rule: Rule = spec.metadata["rule"]
            try:
                object.__setattr__(self, spec.name, rule.parse(value))
            except (TypeError, ValueError, OverflowError, AttributeError, RecursionError):
                raise ConfigError(f"{spec.name} is {shown(value)}; accepted: {rule.accepts()}") from None
        object.__setattr__(self, "pooler_options", spelt(self.pooler, self.pooler_options, _dims(self.dataset)))
        if self.momentum and self.optimizer != "sgd":
            raise ConfigError(f"momentum is {self.momentum!r}, but only the optimizer 'sgd' has one; accepted here: 0")

    @classmethod
    def names(cls) -> list[str]:
        """The names of all parameters, in order."""
        return [spec.name for spec in dataclasses.fields(cls)]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RunConfig:
        """A configuration from names and values, such as a line of a sweep. Unknown names raise `ConfigError`."""
        check_names(values, cls.names())
        return cls(**values)

    def evaluates(self, epoch: int) -> bool:
        """Whether the network is evaluated on the validation and test samples after `epoch`, counted from 1."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters as plain JSON values, in order."""
        return dataclasses.asdict(self)

    @property
    def identity(self) -> dict[str, Any]:
        """The parameters that make this run another one than the default run; of the options, the same."""
        kept = [spec.name for spec in dataclasses.fields(self) if spec.metadata["identity"]]
        given = self.parameters | {"pooler_options": chosen(self.pooler, self.pooler_options)}
        return {name: given[name] for name in kept if given[name] != _DEFAULTS[name]}

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits: a hash of the canonical form of `identity`."""
        as_given = _hash(self.identity | {"pooler_options": self.pooler_options})
        return as_given if as_given in _EARLIER else _hash(self.identity)

    @property
    def name(self) -> str:
        """A readable name that is the run's own: `cifar10-soft-seed1-0123456789ab`."""
        return f"{self.dataset}-{self.pooler}-seed{self.seed}-{self.key}"


# Runs recorded with the option init = 1.0 before an option's default was left out of the key: their records keep it.
_EARLIER = ("91ac4a6c1ef3", "fb212e9ef69f", "4d1b4e9a55ad", "8e6b6fb4d994", "a3364fa2beb4")


def _hash(identity: Mapping[str, Any]) -> str:
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


_DEFAULTS: dict[str, Any] = {
    spec.name: {} if spec.default is dataclasses.MISSING else spec.default for spec in dataclasses.fields(RunConfig)
}


def defaults() -> dict[str, Any]:
    """The default value of every parameter of `RunConfig`, in order."""
    return dict(_DEFAULTS)


def check_names(given: Iterable[str], accepted: Iterable[str]) -> None:
    """Raise `ConfigError` if a given name is not an accepted one; the message names both."""
    accepted = list(accepted)
    unknown = [name for name in given if name not in accepted]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        raise ConfigError(f"unknown parameter{plural} {', '.join(unknown)}; accepted: {', '.join(accepted)}")


def config_from_notebook(namespace: Mapping[str, Any], extra: Iterable[str] = ()) -> RunConfig:
    """The configuration that a notebook's parameter cells have set; `namespace` is the notebook's `globals()`.

    Papermill only warns about a parameter that the notebook does not have, and sets it all the same in a cell of its
    own. So every name that a parameter cell has set must be a parameter of `RunConfig` or one of the `extra` names;
    another one raises `ConfigError` with the accepted names. A parameter cell is one that holds nothing but assignments
    of literals.
    """
    check_names(_set_by_parameter_cells(namespace["In"]), [*RunConfig.names(), *extra])
    return RunConfig.from_mapping({name: namespace[name] for name in RunConfig.names() if name in namespace})


def _set_by_parameter_cells(sources: Iterable[str]) -> list[str]:
    """The names that are set by those executed cells that only assign literals to names."""
    names: dict[str, None] = {}
    for source in sources:
        try:
            statements = ast.parse(source).body
        except SyntaxError:  # a cell with IPython's own syntax
            continue
        if all(isinstance(one, ast.Assign | ast.AnnAssign) and _is_literal(one.value) for one in statements):
            names |= {name: None for one in statements for name in _targets(one)}
    return list(names)


def _targets(statement: ast.stmt) -> list[str]:
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _is_literal(value: ast.expr | None) -> bool:
    """A literal, or a call such as float('inf'), which is how papermill writes what is not finite."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "float":
        return True
    try:
        ast.literal_eval(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False
    return True
