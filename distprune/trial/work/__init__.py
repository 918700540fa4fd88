"""The work of each stage, one module a stage: from a request and stored inputs to a folder."""
