"""docs/scaling.md says what the newest results say."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("scaling_page", ROOT / "scripts/scaling_page.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling_page"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_of_the_newest_results(script: Any) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    made = script.filled(page, script.measured(), script.Assumed())
    assert made == page, "run: python scripts/scaling_page.py"


def test_twice_the_users_need_twice_the_cores_and_a_server_adds_its_part(script: Any) -> None:
    have, assume = script.measured(), script.Assumed()
    seconds = script.core_seconds(have, assume)
    by_hand = 100 * have.first_seconds * have.cores / 128 + 100 * have.cores / have.tokens
    alone = dataclasses.replace(have, server_share=None)
    assert script.core_seconds(alone, assume) == pytest.approx(by_hand)
    half = dataclasses.replace(have, server_share=0.5)
    assert script.core_seconds(half, assume) == pytest.approx(2 * by_hand)
    assert seconds >= by_hand


def test_the_example_of_costs_is_the_formula_with_the_machines_of_the_other_table(
    script: Any,
) -> None:
    have, assume = script.measured(), script.Assumed(core_hour_price=0.5)

    def cells(lines: list[str]) -> dict[str, list[str]]:
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
        return {users: rest for users, *rest in rows}

    machines = {users: row[4] for users, row in cells(script.sizes(have, assume)).items()}
    found = cells(script.costs(have, assume))
    assert set(found) == {"1,000", "100,000", "1,000,000"}
    for users, (count, month, small, small_month) in found.items():
        assert count == machines[users]
        for number, size, cost in ((count, 32, month), (small, have.cores, small_month)):
            by_hand = int(number.replace(",", "")) * size * 730 * 0.5
            assert int(cost.replace(",", "")) == pytest.approx(by_hand, abs=1)
    assert cells(script.costs(have, script.Assumed(core_hour_price=1.0))) != found


def test_a_result_of_the_server_is_read_once_there_is_one(script: Any, tmp_path: Path) -> None:
    for result in script.RESULTS.glob("*-inference.json"):
        (tmp_path / result.name).write_bytes(result.read_bytes())
    part = {"share_of_throughput": {"median": 0.07}}
    found = {"overhead": {"together": {"share_of_throughput": {"median": 0.2}}, "apart": part}}
    (tmp_path / "2026-11-29-server.json").write_text(json.dumps(found))
    have = script.measured(tmp_path)
    assert have.server_share == 0.07
    assert "2026-11-29-server.json" in have.source
