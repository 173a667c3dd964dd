"""The simulated warehouses have the files and rows they say they have, and they are read."""

from __future__ import annotations

from benchmarks import growth, scale


def test_a_small_warehouse_is_opened_and_read(monkeypatch) -> None:
    monkeypatch.setattr(scale, "FILES_OF_A_MODEL", 4)
    monkeypatch.setattr(scale, "LAYERS", 3)
    monkeypatch.setattr(scale, "AXES", 3)
    monkeypatch.setattr(scale.object_store, "figures", lambda *_, **__: [])
    monkeypatch.setattr(scale.on_ray, "figures", list)
    figures = scale.measure([8])
    assert [figure.name.split(": ")[0] for figure in figures] == ["8 files"] * 6
    assert figures[1].holds
    assert all(figure.value > 0 for figure in figures)


def test_every_step_is_measured_at_every_size(work, monkeypatch) -> None:
    for name, value in (("INGEST_SHARE", 5), ("WIDTH", 8), ("CHUNK", 10), ("ROUNDS", 1)):
        monkeypatch.setattr(growth, name, value)
    figures = list(growth.measure((10, 20), str(work.folder)))
    names = {figure.name.removeprefix("exponent of ") for figure in figures}
    assert {"ingest", "opening", "an alignment", "v_auroc", "export", "warehouse check"} <= names
    assert all(figure.conditions.startswith("10, 20 rows: ") for figure in figures)
