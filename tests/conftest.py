"""What every test shares: one thread, so that results repeat (see ../conftest.py), and hypothesis profiles."""

import os

import devices
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# `ci` repeats: the same examples in every run. `HYPOTHESIS_PROFILE=explore` looks for new ones.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("ci"), max_examples=5)  # what `make check` has time for
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# ---- the device that operators are tested on -------------------------------------------------------------------------


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="run the operators' tests, and no others, on this device: cuda")


def pytest_configure(config):
    config.addinivalue_line("markers", "device: runs on the device of --device, as tests with both sets of kernels do")
    config.addinivalue_line("markers", "cpu: runs on the CPU alone")
    try:
        devices.choose(config.getoption("--device"))
    except RuntimeError as error:
        raise pytest.UsageError(str(error).splitlines()[0]) from None


def _on_device(item):
    """Whether a test is one of an operator, and runs on any device."""
    return item.get_closest_marker("cpu") is None and (
        item.get_closest_marker("device") is not None or "kernels" in getattr(item, "fixturenames", ())
    )


# ---- tests of operators run twice: with the PyTorch kernels and with the compiled ones ----


@pytest.fixture(params=["pytorch", "compiled"], scope="module")
def kernels(request):
    """The set of kernels that is in force: a file asks for both with `pytest.mark.usefixtures("kernels")`.

    Of module scope: the kernels are switched twice per file, and hypothesis accepts it.
    """
    from poolnb import native

    if request.param == "pytorch":
        with native.disabled():
            yield request.param
    elif native.available(devices.DEVICE.type):
        yield request.param
    else:
        pytest.skip(f"no compiled kernels: {native.status()}")


def pytest_collection_modifyitems(config, items):
    """An operator without compiled kernels is tested once; what needs no device is not tested again on one."""
    from poolnb import native

    compiled = native.operators(devices.DEVICE.type)
    idle = {item for item in items if compiled and _compiled_operator(item) not in (None, *compiled)}
    if config.getoption("--device") != "cpu":
        idle |= {item for item in items if not _on_device(item)}
    config.hook.pytest_deselected(items=list(idle))
    items[:] = [item for item in items if item not in idle]


def _compiled_operator(item):
    """The operator that a test of the compiled kernels is about; None for any other test, or if it does not say."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if parameters.get("kernels") != "compiled":
        return None
    return _operator(parameters.get("operator", parameters.get("name")))


def _operator(about):
    """The operator's name, from a row of the table of operators or from the name of a pooler or an operator."""
    import poolnb
    from poolnb.registry import pool_class

    if isinstance(about, str):
        return pool_class(about).op if about in poolnb.list_pools() else about
    return getattr(about, "name", None)
