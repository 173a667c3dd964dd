"""The warehouse's SQL, one object a file; `axes.warehouse.connection` loads it."""
