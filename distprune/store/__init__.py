"""Content-addressed store of stage results: knows files, not models.

Roots are local folders or fsspec URIs. JSON and raw files only; nothing is ever unpickled.
"""
