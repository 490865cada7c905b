# The two commands to begin with are `make demo` and `make down`.
.DEFAULT_GOAL := help
.PHONY: help demo up down test bench fuzz image lint

export CLUSTER

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## show Credence at work on real parts (CLUSTER=current: on the cluster of your kubectl)
	@tests/bed/demo

up: ## start etcd, the Kubernetes API server, Kafka, Redis, the operator and the edge in .bed
	@tests/bed/bed up

down: ## stop them and remove .bed
	@tests/bed/bed down

test: ## run every test, on a bed of its own
	@tests/bed/run-tests

bench: ## print the figures of docs/performance.md (about 15 minutes)
	@tests/bed/run-bench

fuzz: ## fuzz what reads a delivery, a short while (RUNS=10000000 for long)
	@tests/fuzz/run

lint: ## check formatting and run the lints
	@cargo fmt --check
	@cargo clippy --locked --all-targets -- -D warnings

image: ## write an OCI image archive to target/image
	@charts/image/build
