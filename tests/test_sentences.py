"""Frozen sentence encoders: what a folder of transformers' makes of captions, and models that read by one."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

import nacre
from nacre import cli
from nacre.data.sentences import SentenceEncoder, reader_of
from nacre.errors import CheckpointError, ConfigError
from nacre.models.stackgan import StackGAN
from test_stackgan import TINY, write_emoji

WORDS = ["[PAD]", "[UNK]", "a", "square", "number", ",", "red", "green", "blue", "white", *map(str, range(48))]
QUICK = {"batch_size": 8, "matching_steps": 3, "validation": 0.0, "test": 0.0, **TINY}


def write_encoder(folder, seed=0, **pooling):
    """A tiny BERT of random weights with a tokenizer of a few words, as sentence-transformers' models lie on the hub."""
    import tokenizers
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    inside = tokenizers.Tokenizer(model)
    inside.normalizer, inside.pre_tokenizer = tokenizers.normalizers.Lowercase(), tokenizers.pre_tokenizers.Whitespace()
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inside, **marks).save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    if pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def by_hand(folder, text):
    """The last layer of one text's tokens, without nacre: (tokens, 16)."""
    import transformers

    model = transformers.BertModel.from_pretrained(folder).eval()
    told = transformers.AutoTokenizer.from_pretrained(folder)([text], return_tensors="pt")
    with torch.no_grad():
        return model(**told).last_hidden_state[0]


def test_a_sentence_is_the_mean_of_its_tokens_whatever_stands_beside_it(folder):
    encoder = SentenceEncoder(folder)
    texts = ["a red square", "a green square, number 3", "Blue", "a red square"]
    vectors = encoder(texts)
    assert vectors.shape == (4, 16)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors[0], vectors[3])
    for text, vector in zip(texts, vectors, strict=True):
        mean = by_hand(folder, text).mean(0)
        assert np.allclose(vector, mean / mean.norm(), atol=1e-5)
        assert np.allclose(encoder([text])[0], vector, atol=1e-5)
    assert encoder([]).shape == (0, 16)


def test_the_folder_says_how_to_pool(folder, tmp_path):
    first = write_encoder(tmp_path / "first", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    state = by_hand(first, "a red square")[0]
    assert np.allclose(SentenceEncoder(first)(["a red square"])[0], state / state.norm(), atol=1e-5)
    largest = write_encoder(tmp_path / "largest", pooling_mode_max_tokens=True)
    with pytest.raises(ConfigError, match="pools by pooling_mode_max_tokens"):
        SentenceEncoder(largest)


def test_what_is_over_goes_unread_and_is_counted(folder):
    encoder = SentenceEncoder(folder)
    assert encoder.longest == 12
    assert (encoder.unread("a red square"), encoder.unread("red " * 15)) == (0, 3)
    assert np.array_equal(encoder(["red " * 5000])[0], encoder(["red " * 12])[0])


def test_a_folder_that_holds_no_encoder_is_one_sentence(folder, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no model folder"):
        SentenceEncoder(tmp_path)
    half = shutil.copytree(folder, tmp_path / "half")
    for path in half.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="no tokenizer that can be read"):
        SentenceEncoder(half)
    empty = shutil.copytree(folder, tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no AutoModel of transformers that can be read"):
        SentenceEncoder(empty)
    (empty / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="no AutoModel of transformers that can be read"):
        SentenceEncoder(empty)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"reading .* needs transformers: pip install transformers$"):
        SentenceEncoder(folder)


def test_no_code_of_the_folders_is_run(folder, tmp_path):
    """A folder may name code of its own for its model; the library's own class of that kind is taken instead."""
    place = shutil.copytree(folder, tmp_path / "with-code")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "theirs.Theirs"}}))
    (place / "theirs.py").write_text("raise SystemExit('ran')")
    assert np.array_equal(SentenceEncoder(place)(["red"]), SentenceEncoder(folder)(["red"]))


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    return write_emoji(tmp_path_factory.mktemp("data") / "emoji", bare=4)


@pytest.fixture(scope="module")
def run(folder, emoji, tmp_path_factory):
    place = tmp_path_factory.mktemp("run") / "run"
    return nacre.train("stackgan", data=str(emoji), out=place, steps=8, text_encoder=str(folder), **QUICK)


def test_a_run_reads_by_its_sentence_encoder(run, folder, emoji):
    model = nacre.load(run)
    said = model.spec.complete()
    assert (said["words"], said["text_origin"]["dim"]) == (12, 16)
    assert model.module.examples.shape[1:] == (16,)
    assert "text.features.weight" not in model.module.state_dict()
    one = model.imagine("a red square", count=2, seed=1)
    assert one.shape == (2, 3, 16, 16)
    assert not torch.equal(model.imagine("a blue square", count=2, seed=1), one)
    assert model.sample(3).shape == (3, 3, 16, 16)


def test_stopped_and_resumed_is_the_same_run(folder, emoji, run, tmp_path):
    nacre.train("stackgan", data=str(emoji), out=tmp_path / "a", steps=5, text_encoder=str(folder), **QUICK)
    again = nacre.resume(tmp_path / "a", steps=8)
    whole, parts = nacre.load(run).module.state_dict(), nacre.load(again).module.state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_another_encoder_is_refused_and_a_moved_one_is_named(run, folder, tmp_path, capsys):
    model = nacre.load(run)
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert torch.equal(model.imagine("red", text_encoder=str(moved)), model.imagine("red"))
    other = write_encoder(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="another sentence encoder"):
        model.imagine("red", text_encoder=str(other))
    model.module.text_encoder = str(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"no longer at .*gone; say where it is by --text-encoder"):
        model.imagine("red")
    words = ["sample", str(run.path), "--prompt", "a crimson square", "--out", str(tmp_path / "a.png")]
    assert cli.main([*words, "--text-encoder", str(moved)]) == 0
    assert "never seen in training, read by the sentence encoder: crimson" in capsys.readouterr().out
    (tmp_path / "prompts.txt").write_text("red\nblue " + "red " * 20, encoding="utf-8")
    words = ["sample", str(run.path), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "b.png")]
    assert cli.main([*words, "--text-encoder", str(moved)]) == 0
    assert "of 1 of them the first 12 tokens alone were read" in capsys.readouterr().out
    assert cli.main(["sample", str(run.path), "--text-encoder", str(moved)]) == 2
    assert "--text-encoder reads the text of --prompt" in capsys.readouterr().err


def test_a_model_of_words_has_none_to_name(emoji, tmp_path):
    own = nacre.load(nacre.train("stackgan", data=str(emoji), out=tmp_path / "own", steps=1, **QUICK))
    with pytest.raises(ConfigError, match="leave --text-encoder out"):
        own.imagine("red", text_encoder=str(tmp_path))


def test_a_model_may_be_built_by_hand(folder):
    model = StackGAN((3, 16, 16), words=12, text_encoder=str(folder), **TINY)
    vectors = torch.from_numpy(reader_of(model)(["red", "blue"]))
    assert torch.allclose(model.read(vectors).norm(dim=1), torch.ones(2))
