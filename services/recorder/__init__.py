"""DuckDB tables and Parquet snapshots of every topic; read-only SQL over HTTP."""
