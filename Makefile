# `make demo` shows Credence, and `make down` stops it again.
.DEFAULT_GOAL := help
.PHONY: help demo up down test bench fuzz image manifests lint

export CLUSTER

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## show Credence at work on real parts (CLUSTER=current: in the cluster of your kubectl context)
	@tests/bed/demo

up: ## start etcd, the Kubernetes API server, Kafka, Redis, the operator and the edge in .bed
	@tests/bed/bed up

down: ## stop them and remove .bed
	@tests/bed/bed down

test: ## run every test, on a bed of its own
	@tests/bed/run-tests

bench: ## measure the figures of docs/performance.md (about 30 minutes)
	@tests/bed/run-bench

fuzz: ## fuzz the code that reads deliveries, briefly (RUNS=10000000: for hours)
	@tests/fuzz/run

lint: ## check formatting, lints, documentation, shell scripts and licences
	@tests/lint

image: ## write an OCI image archive to target/image
	@charts/image/build

manifests: ## render the chart to target/credence.yaml, for kubectl apply --server-side (VALUES="FILE...")
	@charts/render $(addprefix --values ,$(VALUES))
