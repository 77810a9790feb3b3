"""Measures encoding: texts against sentence-transformers, pictures against a plain loop over timm with a DataLoader.

    python -m benchmarks.speed.encode_speed --titles=titles.txt --descriptions=descriptions.txt --pictures=images

Prints inputs a second: the encoder of this package and the other program, with the same model, threads, precision and
numbers of tokens. Each file has one text a line. With ``--parts``, also prints where
this package's time goes. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from recbole_xfer.device import has_fast_bfloat16
from recbole_xfer.log import progress_bar
from recbole_xfer.prepare.picture_inputs import ImageRecipe
from recbole_xfer.prepare.shards import Encoder
from recbole_xfer.prepare.text_inputs import TextRecipe

WARM_UP = 64
"""Inputs that are encoded before the clock starts."""


def inputs_a_second(programs: dict[str, Callable[[list[Any]], Any]], values: list[Any], times: int) -> dict[str, float]:
    """Returns the median inputs a second of each program; they run in turn, so that all meet the same machine."""
    for work in programs.values():
        work(values[:WARM_UP])
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(times):
        for name, work in programs.items():
            start = time.perf_counter()
            work(values)
            seconds[name].append(time.perf_counter() - start)
    return {f"{name}_per_second": len(values) / statistics.median(found) for name, found in seconds.items()}


def ours(encoder: Encoder, shard: int) -> Callable[[list[Any]], np.ndarray]:
    """Encodes values shard by shard, as ``recbole-xfer encode`` does."""

    def encode(values: list[Any]) -> np.ndarray:
        ordered = sorted(values, key=len, reverse=True)
        starts = range(0, len(values), shard)
        return np.concatenate([encoder(ordered[start : start + shard], progress_bar(False))[0] for start in starts])

    return encode


def sentence_transformers(folder: Path, device: str, half: bool, batch_size: int, max_length: int) -> Callable:
    """Encodes texts with sentence-transformers, in bf16 where this package uses it."""
    from sentence_transformers import SentenceTransformer

    kind = {"torch_dtype": torch.bfloat16} if half else {}
    model = SentenceTransformer(str(folder), device=device, model_kwargs=kind)
    model.max_seq_length = max_length
    return lambda texts: model.encode(texts, batch_size=batch_size, show_progress_bar=False)


class Pictures(torch.utils.data.Dataset):
    """Pictures as a plain loop reads them."""

    def __init__(self, paths: list[str], transform: Callable) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def plain_loop(device: str, half: bool, batch_size: int, workers: int) -> Callable[[list[list[str]]], torch.Tensor]:
    """Encodes pictures with timm's model and transform, and PyTorch's DataLoader with its processes."""
    import timm  # after this package, which mends torchvision
    from timm.data import create_transform, resolve_model_data_config

    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(device)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)

    @torch.inference_mode()
    def encode(values: list[list[str]]) -> torch.Tensor:
        pictures = Pictures([path for paths in values for path in paths], transform)
        loader = torch.utils.data.DataLoader(pictures, batch_size=batch_size, num_workers=workers)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return torch.cat([model(batch.to(device)).float().cpu() for batch in loader])

    return encode


def parts(work: Callable[[list[Any]], Any], values: list[Any]) -> dict[str, float]:
    """Returns the fraction of the time in each of the operations that need most of it."""
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        start = time.perf_counter()
        work(values)
        total = time.perf_counter() - start
    rows = sorted(measured.key_averages(), key=lambda row: -row.self_cpu_time_total)[:8]
    return {row.key: round(row.self_cpu_time_total / 1e6 / total, 3) for row in rows}


def measure_texts(texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Returns texts a second of both programs."""
    recipe = TextRecipe(device=options.device)
    files = recipe.find()
    encoder: Any = recipe.load(files)
    encode = ours(encoder, recipe.shard)
    other = sentence_transformers(
        files.path, options.device, encoder.half, options.batch_size or recipe.batch_size, encoder.max_length
    )
    similar = np.abs(encode(texts[:WARM_UP]) - other(sorted(texts[:WARM_UP], key=len, reverse=True))).max()
    found: dict[str, Any] = {
        "texts": len(texts),
        "tokens_per_text": float(np.mean(list(map(len, encoder.tokenizer(texts, truncation=True)["input_ids"])))),
        "precision": encoder.facts["precision"],
        "largest_difference": float(similar),
        **inputs_a_second({"ours": encode, "sentence_transformers": other}, texts, options.times),
    }
    return found | ({"parts": parts(encode, texts)} if options.parts else {})


def measure_pictures(paths: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Returns pictures a second of this package and of a plain loop."""
    recipe = ImageRecipe(device=options.device, workers=options.workers)
    encoder: Any = recipe.load(recipe.find())
    values = [[path] for path in paths]
    encode = ours(encoder, recipe.shard)
    plain = plain_loop(options.device, encoder.half, options.batch_size or 64, options.workers)
    found = {
        "pictures": len(paths),
        "precision": encoder.facts["precision"],
        **inputs_a_second({"ours": encode, "plain_loop": plain}, values, options.times),
    }
    return found | ({"parts": parts(encode, values)} if options.parts else {})


def main() -> None:
    """Measures what the options name; prints one line of json for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=Path, help="a file with one short text a line")
    parser.add_argument("--descriptions", type=Path, help="a file with one long text a line")
    parser.add_argument("--pictures", type=Path, help="a folder")
    parser.add_argument("--inputs", type=int, default=4096, help="at most so many of each (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, help="of the other program (default: 128 texts, 64 pictures)")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads(), help="that read pictures")
    parser.add_argument("--times", type=int, default=3, help="runs, of which the median counts (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--parts", action="store_true", help="also print where this package's time goes")
    options = parser.parse_args()
    fast = has_fast_bfloat16(torch.device(options.device))
    print(json.dumps({"threads": torch.get_num_threads(), "device": options.device, "bfloat16": fast}))
    for name in ("titles", "descriptions"):
        if path := getattr(options, name):
            texts = path.read_text(encoding="utf-8").splitlines()[: options.inputs]
            print(json.dumps({"what": name, **measure_texts(texts, options)}), flush=True)
    if options.pictures:
        paths = sorted(str(path) for path in options.pictures.iterdir())[: options.inputs]
        print(json.dumps({"what": "pictures", **measure_pictures(paths, options)}), flush=True)


if __name__ == "__main__":
    main()
