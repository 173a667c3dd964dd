"""The charts of the report: one a module, its SQL beside what draws it."""
