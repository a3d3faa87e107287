"""What every test shares: one thread, so that results repeat, and hypothesis profiles."""

import os

# Before torch or NumPy is imported, and inherited by the kernels that nbval starts.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)

# `ci` repeats: the same examples in every run. `HYPOTHESIS_PROFILE=explore` looks for new ones.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# ---- every test of an operator runs twice: with the PyTorch kernels and with the compiled ones ----


def pytest_generate_tests(metafunc):
    if "operator" in metafunc.fixturenames:
        # Of module scope: the kernels are switched twice per file, and hypothesis accepts it.
        metafunc.fixturenames.append("kernels")
        metafunc.parametrize("kernels", ["pytorch", "compiled"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def kernels(request):
    from poolnb import native

    if request.param == "compiled":
        if not native.available():
            pytest.skip(f"no compiled kernels: {native.status()}")
        yield
    else:
        with native.disabled():
            yield


def pytest_collection_modifyitems(config, items):
    """An operator without compiled kernels is tested once."""
    from poolnb import native

    compiled = native.operators()
    if compiled:
        idle = [i for i in items if _compiled_operator(i) not in (None, *compiled)]
        config.hook.pytest_deselected(items=idle)
        items[:] = [i for i in items if i not in set(idle)]


def _compiled_operator(item):
    """The name of the operator if the item is a test of compiled kernels."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return parameters["operator"].name if parameters.get("kernels") == "compiled" else None
