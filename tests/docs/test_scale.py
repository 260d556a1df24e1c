"""The arithmetic of `docs/scale.md` is that of the model, and a small day passes as it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.scale_model import MEASURED, cells, predict
from benchmarks.scale_tables import CORES, FULL, PER_WORKER, tables
from benchmarks.scale_town import BUSIEST, NIGHT, curve, mean

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "scale.md").read_text()


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.splitlines()[2][2:40])
def test_a_table_of_the_document_is_what_the_model_computes(table: str) -> None:
    assert table in DOCUMENT, "print it with: python -m benchmarks.scale_tables"


def test_a_hundredth_of_the_load_is_a_hundredth_of_everything() -> None:
    whole, part = predict(FULL, MEASURED), predict(FULL.divided(100), MEASURED)
    assert part.bytes == pytest.approx(whole.bytes / 100)
    assert part.round_trips == pytest.approx(whole.round_trips / 100)
    assert part.worker_memory == pytest.approx(whole.worker_memory / 100)


def test_what_one_worker_hears_falls_with_more_cells_and_not_with_more_workers() -> None:
    few, more = (cells(FULL, MEASURED, 4, PER_WORKER, each) for each in (CORES, CORES / 10))
    assert more.workers > few.workers
    assert more.heard == few.heard
    assert cells(FULL, MEASURED, 8, PER_WORKER, CORES).heard == pytest.approx(few.heard / 2)


def test_a_day_has_a_night_and_a_busiest_hour() -> None:
    parts = [part / 1000 for part in range(1000)]
    assert curve(BUSIEST) == pytest.approx(1)
    assert min(map(curve, parts)) == pytest.approx(NIGHT, abs=0.001)
    assert sum(map(curve, parts)) / 1000 == pytest.approx(mean())


@pytest.mark.timeout(120)
def test_a_small_day_with_a_worker_that_is_killed_leaves_no_turn_open_or_with_two_ends() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "scale", "--quick"]
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {each["figure"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert found["scale.turns"]["value"] > 0
    assert found["scale.two_ends"]["ok"]
    assert found["scale.open"]["ok"]
    assert found["scale.postgres_connections"]["value"] > 0
