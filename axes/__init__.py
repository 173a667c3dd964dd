"""Safety axes in Python: the functions for users, each imported when it is first used.

    import axes
    axes.connect("lake").sql("from v_auroc").pl()      # .df(), .to_arrow_table(), .fetchall()
    axes.scan("activations", "lake")                   # a polars LazyFrame
    axes.study("demo")                                 # what `axes study demo` does
    axes.load_axis("universal/demo/18/demo_safety/lambda-held_out").project(vectors)

docs/python.md describes each. `axes.ingest`, `axes.analysis`, `axes.warehouse` and `axes.sql` are
the four libraries: folders at the top of the repository, imported through links in this one, so
that a user's `analysis.py` does not hide them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from axes.warehouse.errors import AxesError

if TYPE_CHECKING:
    from axes.api import (
        connect,
        export,
        fit,
        import_prompts,
        ingest_activations,
        ingest_traces,
        load_axis,
        read_study,
        report,
        run,
        scan,
        score,
        study,
    )
    from axes.results import Axis, Result, Study

__all__ = [
    "AxesError",
    "Axis",
    "Result",
    "Study",
    "connect",
    "export",
    "fit",
    "import_prompts",
    "ingest_activations",
    "ingest_traces",
    "load_axis",
    "read_study",
    "report",
    "run",
    "scan",
    "score",
    "study",
]

_RESULTS = ("Axis", "Result", "Study")


def __getattr__(name: str) -> Any:
    """The names of `__all__`, imported on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "axes.results" if name in _RESULTS else "axes.api"
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
