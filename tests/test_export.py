"""ONNX files: they compute what PyTorch computes, for batches of any size."""

import json

import numpy as np
import pytest
import torch

import nacre
from nacre.cli import main
from nacre.contract.subject import Subject, with_classes
from nacre.errors import CapabilityError, RunError
from nacre.models import CATALOGUE
from nacre.run import export
from nacre.run.export import TOLERANCE, export_onnx
from nacre.spec import spec

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "gan"
    return nacre.train("gan", out=path, latent_dim=3, hidden=(8,), steps=6, batch_size=8, sample_every=0, ema=0.5)


def test_the_averaged_weights_are_exported_and_answer_as_the_library_does(run, capsys):
    assert main(["export", str(run.path), "--onnx", "out", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["verb"] for each in told["files"]] == ["sample", "decode", "realness"]
    assert all(each["difference"] <= TOLERANCE for each in told["files"])
    model = nacre.load(run)
    codes = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession("out/decoder.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"codes": codes.numpy()})
    np.testing.assert_allclose(got, model.decode(codes).numpy(), atol=1e-5)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["model"]) == "gan"
    assert json.loads(notes["inputs"]) == {"codes": ["N", 3]}


def test_a_file_that_computes_something_else_is_not_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "compare", lambda *_: 2e-5)
    with pytest.raises(RunError, match=r"generator.onnx differs from PyTorch by 2.0e-05, more than 1e-05"):
        export_onnx(nacre.load(run).module, (1, 8, 8), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_files_of_another_model_are_not_left_beside(run, tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"another's")
    with pytest.raises(RunError, match=r"holds encoder.onnx of another model; take another folder"):
        export_onnx(nacre.load(run).module, (1, 8, 8), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.onnx"]


@pytest.mark.slow
def test_spectral_norms_are_exported_and_the_model_stays_as_it_is(tmp_path):
    model = spec("gan", {"spectral_norm": True, "network": "conv", "width": 4}).build((1, 8, 8)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    written = export_onnx(model, (1, 8, 8), tmp_path)
    assert max(each.difference for each in written) <= TOLERANCE
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_does_nothing_is_told_so(tmp_path):
    with pytest.raises(CapabilityError, match="can be asked for nothing that is exported"):
        export_onnx(torch.nn.Linear(1, 1), (2,), tmp_path)


SMALL = {
    "cyclegan": {"blocks": 1, "width": 8},
    "pix2pix": {"width": 8},
    "stackgan": {"width": 4, "judge_width": 8, "blocks": 0},
}
"""Fewer layers of the same kinds."""


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 11, 18)], ids=str)
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_model_is_exported_exactly(name, shape, tmp_path):
    model = Subject(with_classes(spec(name, SMALL.get(name))), shape, "aot_eager").build()
    written = export_onnx(model, shape, tmp_path)
    assert written
    assert max(each.difference for each in written) <= TOLERANCE
    for each in written:
        graph = onnxruntime.InferenceSession(each.path, providers=["CPUExecutionProvider"])
        assert all(there.shape == each.inputs[there.name] for there in graph.get_inputs())
        assert [there.shape for there in graph.get_outputs()] == list(each.outputs.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "gan", "began"])
def test_conditional_models_are_exported_with_their_labels(name, tmp_path):
    model = Subject(spec(name, {"classes": 3}), (1, 8, 8), "aot_eager").build()
    written = {each.verb: each for each in export_onnx(model, (1, 8, 8), tmp_path)}
    assert written["sample"].inputs["label"] == ["N"]
    assert max(each.difference for each in written.values()) <= TOLERANCE


def test_what_rounding_alone_makes_differ_is_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "compare", lambda *_: 3e-5)
    monkeypatch.setattr(export, "rounding", lambda *_: 1e-5)
    assert export_onnx(nacre.load(run).module, (1, 8, 8), tmp_path / "out")
    monkeypatch.undo()
    decoder = export.Verb(nacre.load(run).module, "decode", ["codes"])
    assert 0 < export.rounding(decoder, {"codes": torch.randn(9, 3)}) < 1e-6


def test_a_bare_flag_writes_into_a_folder_of_its_name(run, capsys):
    assert main(["export", str(run.path), "--onnx"]) == 0
    assert main(["export", str(run.path), "--onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["out"] == "onnx"
