"""What `poolnb bench` compares with computes the same as the operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poolnb import baselines, bench, published
from poolnb import functional as F

_FORMS = [(f, n) for f, pools in (("plain", baselines.PLAIN), ("stable", baselines.STABLE)) for n in pools]


@pytest.mark.parametrize("windows", [(2, 2, 0), (3, 2, 1), None], ids=str)
@pytest.mark.parametrize(("form", "name"), _FORMS)
def test_what_a_user_would_write_is_the_operator(form: str, name: str, windows: baselines.Windows) -> None:
    setting = bench.Setting((2, 3, 6, 8), "k2s2", "float64", "nchw", "cpu")
    x = setting.input()
    params: dict[str, Any] = bench._params(name, setting, ())
    pool = {"plain": baselines.PLAIN, "stable": baselines.STABLE}[form][name]
    function = getattr(F, f"{'soft' if name == 'auto' else name}_pool2d")
    torch.testing.assert_close(pool(x, windows, *params.values()), function(x, *(windows or (None,)), **params))


def test_softpool_s_extension_is_named_or_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for value, why in ((None, "does not name"), (str(tmp_path), "no sources in")):
        monkeypatch.setenv(published.VARIABLE, value) if value else monkeypatch.delenv(published.VARIABLE, False)
        published.soft_pool.cache_clear()
        found = published.soft_pool()
        assert isinstance(found, str) and why in found
