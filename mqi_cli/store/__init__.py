"""The state database: tables, named operations, migrations. No query is written anywhere else."""
