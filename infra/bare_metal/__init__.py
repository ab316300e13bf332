"""One host without containers: PostgreSQL, the Prefect server, an S3 server and workers, as `infra/stack` starts them.

Python's standard library only, on Linux: it runs before anything is installed.
"""
