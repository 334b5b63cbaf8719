# Every target does its own set-up: it makes .venv and installs what it needs, again whenever pyproject.toml changed.

PYTEST := .venv/bin/python -m pytest

.PHONY: help demo test soak lint bench bench-aiida bench-store bench-scaling bench-transfer picture clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    run the pipeline on sample cases; needs no server"
	@echo "make test    run the tests, against a real SSH server and a real RabbitMQ on loopback"
	@echo "make lint    ruff and mypy"
	@echo "make soak    the tests that take minutes"
	@echo "make bench   the measurements"
	@echo "make bench-aiida  against AiiDA, which is installed below .bench for it"
	@echo "make bench-store  a million cases in the state database, 10,000 that wait, 2,000,000 files; takes minutes and 6 GB in \$$TMPDIR"
	@echo "make bench-scaling  the figures of docs/scaling.md: conductor, broker, bytes on the disk"
	@echo "make bench-transfer  transfers beside sftp, scp, lftp, rclone and tar over ssh"
	@echo "make picture draw docs/watch.svg, the picture in the README"
	@echo "make clean   remove .venv and everything that was built"

demo: .venv/installed
	.venv/bin/mqi demo

test: .venv/installed-tools
	tests/servers/install
	$(PYTEST) -n 3 -m "not soak"  # three on two cores: much of the time is waiting

soak: .venv/installed-tools
	tests/servers/install
	$(PYTEST) -m soak --timeout 3600

lint: .venv/installed-tools
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: .venv/installed-tools
	tests/servers/install
	.venv/bin/python benchmarks/run.py

bench-store: .venv/installed-tools
	.venv/bin/python benchmarks/store.py
	.venv/bin/python benchmarks/waiting.py
	.venv/bin/python benchmarks/rescan.py

bench-scaling: .venv/installed-tools
	tests/servers/install
	.venv/bin/python benchmarks/scaling.py

bench-transfer: .venv/installed-tools
	tests/servers/install
	.venv/bin/python benchmarks/transfer.py
	.venv/bin/python benchmarks/transfer_again.py

bench-aiida: .venv/installed-tools
	tests/servers/install
	.venv/bin/python benchmarks/against_aiida.py

picture: .venv/installed
	.venv/bin/python -m mqi_cli.watch.picture docs/watch.svg

clean:
	rm -rf .venv .demo .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis test-artefacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml .ci/venv
	.ci/venv
	touch $@

.venv/installed-tools: .venv/installed
	.ci/venv test lint
	touch $@
