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
    from axes.analysis.methods.directions import Direction
    from axes.api import (
        concepts,
        connect,
        export,
        fit,
        load_axis,
        load_monitor,
        read_study,
        report,
        run,
        scan,
        score,
        study,
    )
    from axes.commands import (
        angles,
        calibrate,
        claims,
        compare,
        diagnose,
        diff,
        diff_models,
        drift,
        evaluate,
        explain,
        import_axes,
        intervene,
        label,
        list_names,
        log,
        monitor,
        plan,
        push,
        route,
        sensitivity,
        transfer,
    )
    from axes.jobs import (
        import_prompts,
        ingest_activations,
        ingest_traces,
    )
    from axes.results import (
        Axis,
        Result,
        Study,
    )

__all__ = [
    "AxesError",
    "Axis",
    "Direction",
    "Result",
    "Study",
    "angles",
    "calibrate",
    "claims",
    "compare",
    "concepts",
    "connect",
    "diagnose",
    "diff",
    "diff_models",
    "drift",
    "evaluate",
    "explain",
    "export",
    "fit",
    "import_axes",
    "import_prompts",
    "ingest_activations",
    "ingest_traces",
    "intervene",
    "label",
    "list_names",
    "load_axis",
    "load_monitor",
    "log",
    "monitor",
    "plan",
    "push",
    "read_study",
    "report",
    "route",
    "run",
    "scan",
    "score",
    "sensitivity",
    "study",
    "transfer",
]

# The last two import NumPy.
_MODULES = ("api", "commands", "jobs", "results", "analysis.methods.directions")


def __getattr__(name: str) -> Any:
    """The names of `__all__`, imported on first use."""
    for module in _MODULES if name in __all__ else ():
        names = vars(importlib.import_module(f"axes.{module}"))
        if name in names:
            globals()[name] = names[name]
            return names[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
