"""The warehouse's SQL, one object a file; `warehouse.connection` loads it."""
