"""The matrix of models and sources, without training any."""

import numpy as np
import pytest

from nacre.data import DataSettings, load
from nacre.models import CATALOGUE


@pytest.fixture(scope="module")
def matrix(script):
    return script("matrix")


def test_the_drawn_photos_are_what_the_matrix_asks_for(matrix, tmp_path):
    matrix.drawn(tmp_path / "photos")
    found = load(DataSettings(data=str(tmp_path / "photos")))
    assert (found.shape, found.kind, found.classes) == ((3, 64, 64), "photos", ("disc", "square"))
    assert len(found) == matrix.DRAWN


@pytest.mark.parametrize("model", CATALOGUE)
def test_every_model_is_used_for_what_it_can_do(model, matrix, tmp_path):
    source = matrix.Source("digits", "digits", (1, 8, 8), tmp_path / "digits.npy")
    commands = [command for command, *_ in matrix.uses(model, source)]
    if model in ("cyclegan", "pix2pix"):  # they translate files, of whatever size
        assert not commands
        return
    assert commands[0] == ("classify" if model == "transfer" else "sample")
    assert ("classify" in commands) == (model in ("transfer", "m2"))
    assert ("encode" in commands) == ("reconstruct" in commands)


def test_a_wrong_answer_fails_the_cell(matrix, tmp_path):
    with pytest.raises(matrix.FailedError, match="of shape"):
        matrix.check_array(np.zeros((2, 3)), (2, 4), "sample")
    with pytest.raises(matrix.FailedError, match="not finite"):
        matrix.check_array(np.array([np.nan]), (1,), "sample")
    with pytest.raises(matrix.FailedError, match="has no config"):
        matrix.check_run(tmp_path, 3)
    cell = matrix.Cell("vae", "digits")
    with pytest.raises(matrix.FailedError, match=r"nacre sample .* left with 2 and said: nacre: "):
        matrix.call(cell, "sample", str(tmp_path / "nothing"))
