"""The simulated warehouse has the files it says it has, and they are read."""

from __future__ import annotations

from benchmarks import scale


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
