"""Every pooler with the rest of PyTorch: compiler, exporters, autocast, transforms, saving, reproducible training."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
from devices import DEVICE, torch
from poolers import LEARNED, SAMPLED, batch, every_pooler, make
from torch import Tensor, nn
from torch.nn.utils import parametrize

import poolnb
from poolnb import functional as F

pytestmark = pytest.mark.usefixtures("kernels")


def seeded(name: str, training: bool) -> dict[str, Tensor]:
    return {"seed": torch.tensor(5)} if training and name in SAMPLED else {}


def gradients(module: nn.Module, call: Any, x: Tensor, **more: Any) -> tuple[Tensor, list[Tensor]]:
    """The output of ``call``, and the gradients of the input and the parameters of ``module``."""
    leaf = x.clone().requires_grad_()
    y = call(leaf, **more)
    return y, list(torch.autograd.grad(y.square().sum(), [leaf, *module.parameters()]))


# ---- compiler --------------------------------------------------------------------------------------------------------


@every_pooler
def test_compiles_into_one_graph(name: str) -> None:
    torch._dynamo.reset()
    module, x = make(name), batch()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    y, grads = gradients(module, module, x, **seeded(name, True))
    same, same_grads = gradients(module, compiled, x, **seeded(name, True))
    torch.testing.assert_close(same, y)
    torch.testing.assert_close(same_grads, grads)


@pytest.mark.parametrize("dims", [1, 3])
@every_pooler
def test_compiles_and_exports_in_one_and_three_dimensions(name: str, dims: int) -> None:
    torch._dynamo.reset()
    module = poolnb.create_pool(name, 2, dims=dims, channels=3, output_size=2).to(DEVICE)
    x, more = torch.randn(2, 3, *(4,) * dims), seeded(name, True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(module, compiled, x, **more), gradients(module, module, x, **more))
    module.eval()
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


@pytest.mark.parametrize("name", ["soft", "stochastic", "tdgs"])
def test_inductor_gives_the_same_as_eager(name: str) -> None:
    torch._dynamo.reset()
    module, x = make(name), batch()
    compiled = torch.compile(module, fullgraph=True)
    y, grads = gradients(module, module, x, **seeded(name, True))
    same, same_grads = gradients(module, compiled, x, **seeded(name, True))
    torch.testing.assert_close(same, y)
    torch.testing.assert_close(same_grads, grads)
    if name in SAMPLED:  # the seeds that are drawn are the same too
        torch.manual_seed(1)
        first, second = module(x), module(x)
        assert not torch.equal(first, second)
        torch.manual_seed(1)
        assert torch.equal(compiled(x), first) and torch.equal(compiled(x), second)


def test_one_graph_serves_every_batch_size() -> None:
    torch._dynamo.reset()
    module = make("soft")
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n in (2, 5, 3):
            torch.testing.assert_close(compiled(batch(n=n)), module(batch(n=n)))


# ---- exporters -------------------------------------------------------------------------------------------------------


@every_pooler
def test_exports(name: str) -> None:
    module = make(name).eval()
    free = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(module, (batch(),), dynamic_shapes=(free,))
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    loaded = torch.export.load(stored).module()
    for n in (2, 5):
        torch.testing.assert_close(loaded(batch(1, n)), module(batch(1, n)))


# ---- autocast and dtypes ---------------------------------------------------------------------------------------------


@every_pooler
def test_under_autocast(name: str) -> None:
    module, x = make(name), batch()
    with torch.autocast(DEVICE.type, torch.bfloat16):
        half = x.bfloat16().requires_grad_()
        y = module(half, **seeded(name, True))
        full = module(x, **seeded(name, True))
    assert y.dtype == torch.bfloat16 and full.dtype == torch.float32
    y.float().square().sum().backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16 and half.grad.isfinite().all()
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32
    if name not in ("attention", "lip"):  # their networks are what autocast is for
        expected = module(x, **seeded(name, True))
        torch.testing.assert_close(full, expected)


@every_pooler
def test_module_conversion(name: str) -> None:
    module, x = make(name).eval(), batch()
    y = module(x)
    torch.testing.assert_close(copy.deepcopy(module).double()(x.double()).float(), y, rtol=1e-4, atol=1e-5)
    low = copy.deepcopy(module).bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), y, rtol=0.1, atol=0.1)


# ---- torch.func ------------------------------------------------------------------------------------------------------


@every_pooler
def test_vmap_over_samples_and_per_sample_gradients(name: str) -> None:
    module, x = make(name).eval(), batch(n=3).unsqueeze(1)
    torch.testing.assert_close(torch.vmap(module)(x), torch.stack([module(a) for a in x]))
    parameters = {n: p.detach() for n, p in module.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(module, parameters, (x,)).square().sum()

    slope = torch.func.grad(loss, argnums=(0, 1))
    together = torch.vmap(slope, (None, 0))(parameters, x)
    each = [slope(parameters, a) for a in x]
    torch.testing.assert_close(together[1], torch.stack([g[1] for g in each]))
    for n in parameters:
        torch.testing.assert_close(together[0][n], torch.stack([g[0][n] for g in each]))


@every_pooler
def test_func_grad_equals_autograd(name: str) -> None:
    module, x = make(name), batch()
    more = seeded(name, True)
    _, grads = gradients(module, module, x, **more)
    parameters = dict(module.named_parameters())

    def loss(x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(module, parameters, (x,), more).square().sum()

    of_x, of_parameters = torch.func.grad(loss, argnums=(0, 1))(x, parameters)
    torch.testing.assert_close([of_x, *of_parameters.values()], grads)


# ---- saving ----------------------------------------------------------------------------------------------------------


@every_pooler
def test_state_dict_round_trip(name: str) -> None:
    module, other, x = make(name, 1).eval(), make(name, 2).eval(), batch()
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert bool(state) == (name in LEARNED)
    if state:
        assert not torch.equal(module(x), other(x))
    other.load_state_dict(state)
    assert torch.equal(module(x), other(x))


@every_pooler
def test_pickle_and_deepcopy(name: str) -> None:
    module, x = make(name).eval(), batch()
    for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(twin(x), module(x))
        assert repr(twin) == repr(module)
        for a, b in zip(twin.parameters(), module.parameters(), strict=True):
            assert a is not b and torch.equal(a, b)


@pytest.mark.parametrize("name", LEARNED)
def test_parameters_can_be_parametrized(name: str) -> None:
    module, x = make(name), batch()
    path, parameter = next(iter(module.named_parameters()))
    owner = module.get_submodule(path.rpartition(".")[0])
    before = gradients(module, module, x, **seeded(name, True))

    class Doubled(nn.Module):
        def forward(self, raw: Tensor) -> Tensor:
            return 2 * raw

        def right_inverse(self, value: Tensor) -> Tensor:
            return value / 2

    parametrize.register_parametrization(owner, path.rpartition(".")[2], Doubled())
    y, grads = gradients(module, module, x, **seeded(name, True))
    torch.testing.assert_close(y, before[0])
    raw = next(i for i, (n, _) in enumerate(module.named_parameters()) if "original" in n)
    torch.testing.assert_close(grads[1 + raw], 2 * before[1][1])
    assert grads[1 + raw].shape == parameter.shape


# ---- training --------------------------------------------------------------------------------------------------------


def trained(name: str, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    pooler = poolnb.create_pool(name, 2, channels=4, output_size=4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), pooler, nn.Flatten(), nn.Linear(64, 5)).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, target = torch.randn(16, 3, 8, 8), torch.randint(5, (16,))
    for _ in range(4):
        optimizer.zero_grad()
        with torch.backends.cudnn.flags(deterministic=True):  # of the convolution, on a GPU
            nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@every_pooler
def test_manual_seed_reproduces_a_training_run_bit_for_bit(name: str) -> None:
    first = trained(name, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, trained(name, 3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, trained(name, 4), strict=True))


def test_sampled_poolers_draw_anew_in_every_step() -> None:
    # With the same seed in every call the run differs from the one that draws seeds: the draws do vary.
    x = batch()
    for name in SAMPLED:
        module = make(name)
        outputs = [module(x) for _ in range(4)]
        assert len({y.detach().cpu().numpy().tobytes() for y in outputs}) == 4


def test_functions_work_without_gradients_and_in_inference_mode() -> None:
    x = batch()
    for params in ({"training": True, "seed": 1}, {}):
        y = F.tdgs_pool2d(x, 2, temperature=0.5, **params)
        with torch.inference_mode():
            assert torch.equal(F.tdgs_pool2d(x, 2, temperature=0.5, **params), y)
