"""What the ``worker`` command refuses before it begins."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from common.errors import UserError
from common.installing import how_to_install
from workers.cli import app


def test_a_picture_without_matplotlib_names_the_extra_to_install(monkeypatch):
    def find_all_but_matplotlib(name: str) -> object:
        return None if name == "matplotlib" else find_spec(name)

    monkeypatch.setattr(app, "find_spec", find_all_but_matplotlib)
    with pytest.raises(UserError) as caught:
        app.validate(model="random:esm2_t6_8M_UR50D", picture=Path("validation.png"))
    assert str(caught.value) == f"--picture needs matplotlib: {how_to_install('local')}"
