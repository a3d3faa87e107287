"""What `poolnb bench` compares with computes the same as the operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poolnb import baselines, published
from poolnb import functional as F
from poolnb.bench import work

_FORMS = [(f, n) for f, pools in (("plain", baselines.PLAIN), ("stable", baselines.STABLE)) for n in pools]


_SHAPES = {1: (2, 3, 11), 2: (2, 3, 6, 8), 3: (2, 3, 4, 5, 6)}


@pytest.mark.parametrize(("form", "name"), _FORMS)
@pytest.mark.parametrize("kind", work.WORK)
def test_what_a_user_would_write_is_the_operator(form: str, name: str, kind: str) -> None:
    dims = len(work.WORK[kind].shape) - 2
    setting = work.Setting(_SHAPES[dims], kind, "float64", "nchw", "cpu")
    x = setting.input()
    windows = work.WORK[kind].windows(x)
    params: dict[str, Any] = work.parameters(name, setting, ())
    pool = {"plain": baselines.PLAIN, "stable": baselines.STABLE}[form][name]
    function = getattr(F, f"{'soft' if name == 'auto' else name}_pool{dims}d")
    expected = function(x, *windows.geometry, **params, mask=windows.mask)
    torch.testing.assert_close(pool(x, windows, *params.values()), expected)


def test_softpool_s_extension_is_named_or_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for value, why in ((None, "does not name"), (str(tmp_path), "no sources in")):
        monkeypatch.setenv(published.VARIABLE, value) if value else monkeypatch.delenv(published.VARIABLE, False)
        published.soft_pool.cache_clear()
        found = published.soft_pool()
        assert isinstance(found, str) and why in found
