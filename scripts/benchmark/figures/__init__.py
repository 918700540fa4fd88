"""The figures, one module each: `measure(settings)` returns rows for the table and details."""
