"""What `v_held_out` says of intervals for all of a study's models together."""

from __future__ import annotations

from pathlib import Path

from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, connect_unlocked, rows
from tests.worlds import define_study, make_world


def test_v7_the_ceiling_widens_the_upper_half_of_an_interval(tmp_path: Path) -> None:
    """Intervals of a share are not symmetric: the other half gives another, even a lower end."""
    world = make_world(
        tmp_path / "lake", widths={"alpha": 16, "beta": 16}, labelled={"labelled": 100}
    )
    run_study(world.root, define_study(("alpha", "beta")))
    (before, *_) = rows(connect(world.root), "from v_held_out")
    connection = connect_unlocked(world.root)
    connection.execute("create table stored as from stg_evaluations")
    of_interest = "starts_with(scorer, 'leave_one_out') and metric = 'auroc'"
    values = {"estimate": 0.32, "lower": 0.25, "upper": 0.48}
    changed = [f"if({of_interest}, {value}, {name}) as {name}" for name, value in values.items()]
    connection.execute(
        "create or replace view stg_evaluations as "
        f"select * replace ({', '.join(changed)}) from stored"
    )
    assert before["leave_one_out_ceiling"] >= before["leave_one_out_upper"]
    for row in rows(connection, "from v_held_out"):
        assert row["leave_one_out_upper"] == 0.48
        assert row["leave_one_out_ceiling"] > 0.48
