# make demo    train a small HaLViT on handwritten digits with two ranks, test it, count its untied counterpart
# make demo-det  the same for Mask R-CNN: a backbone, a detector, COCO's evaluation, drawn detections
# make demo-seg  the same for UPerNet: a backbone, a segmentor, mmseg's evaluation, drawn masks
# make test    run the tests
# make test-openmmlab  run what runs beside OpenMMLab's own packages without mmcv's operators, in build/stacks
# make test-matrix  run the tests that touch upstream in an environment of each stack, or of those in STACKS='onedl-3.12'
# make tables  measure what every model of the papers' tables costs, and write docs/tables.md
# make deploy-table  export the models in every format and write docs/formats.md
# make gpu-check  run what needs GPUs, on all GPUs of this machine, and write docs/gpu.md; without one, say what it would do
# make docker  build the images halvit-mm (CUDA) and halvit-mm:cpu; make docker IMAGES=cpu builds one
# make docs    build the pages in build/site, in an environment of their own; a warning or a broken link fails
# make web     build the page that runs exported classifiers in the browser in build/web, and serve it to this machine
# make lint    check the style of code and prose
# make setup   what the others begin with: .venv with the tested set, once

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)

RANKS ?= 2
# Arguments of the demo's training, such as --cfg-options train_cfg.max_epochs=10
DEMO_ARGS ?=
DEMO_CONFIG := configs/digits/halvit_2xb64_digits.py
DEMO_DIR := work_dirs/demo

.PHONY: demo demo-det demo-seg test test-openmmlab test-matrix tables deploy-table gpu-check docker docs web lint setup

setup:
	@requirements/install.sh

demo: setup
	python tools/prepare_digits.py
	tools/dist_train.sh $(DEMO_CONFIG) $(RANKS) --work-dir $(DEMO_DIR) $(DEMO_ARGS)
	tools/dist_test.sh $(DEMO_CONFIG) $$(cat $(DEMO_DIR)/last_checkpoint) $(RANKS) --work-dir $(DEMO_DIR) \
		--out $(DEMO_DIR)/metrics.json --out-item metrics
	@python research/summarize.py $(DEMO_CONFIG) --metrics $(DEMO_DIR)/metrics.json --untied model.backbone.tie=none

demo-det: setup
	RANKS=$(RANKS) tools/digits_coco.sh halvit work_dirs/demo-det

demo-seg: setup
	RANKS=$(RANKS) tools/digits_seg.sh work_dirs/demo-seg

test: setup
	python -m pytest -n 3 --dist worksteal $(PYTEST_ARGS)

# requirements/stack.sh makes the environments; tests/stacks.py has what a stack cannot run.
STACKS ?= onedl-3.10 onedl-3.11 onedl-3.12 openmmlab
OPENMMLAB_TESTS := tests/test_torch.py tests/test_check_env.py tests/layers tests/io tests/models tests/tying \
	tests/configs/test_configs.py tests/train/test_loops.py tests/train/test_seeds.py
KILLED := tests/tools/test_training.py::test_killed_training_ends_with_the_same_weights
MATRIX_TESTS := tests/test_torch.py tests/test_check_env.py tests/test_upstream.py tests/configs tests/layers tests/models \
	tests/io tests/tying/test_replace.py

test-openmmlab: setup
	venv=$$(requirements/stack.sh openmmlab-lite) && \
		export PATH=$$venv/bin:$$PATH && \
		python -m pytest -n 2 --dist worksteal -m 'not long' $(OPENMMLAB_TESTS) && python -m pytest $(KILLED)

test-matrix: setup
	for stack in $(STACKS); do \
		venv=$$(requirements/stack.sh $$stack) && echo "== $$stack" && \
			(export PATH=$$venv/bin:$$PATH && \
				python -m pytest -n 2 --dist worksteal -m 'not long' $(MATRIX_TESTS) && python -m pytest $(KILLED)) || exit; \
	done

tables: setup
	PYTHONPATH=.venv/transformers python research/make_tables.py

deploy-table: setup
	python research/make_deploy_table.py

gpu-check: setup
	python research/gpu_check.py

IMAGES ?= cuda cpu
DOCKERFILE_cuda := docker/Dockerfile
DOCKERFILE_cpu := docker/cpu.Dockerfile
TAG_cuda := halvit-mm
TAG_cpu := halvit-mm:cpu

docker:
	$(foreach image,$(IMAGES),docker build -f $(DOCKERFILE_$(image)) -t $(TAG_$(image)) . &&) true

# Material for MkDocs prints a notice about other tools unless it is told not to.
docs: setup
	NO_MKDOCS_2_WARNING=1 uv run --quiet --isolated --no-project --with-requirements requirements/docs.txt \
		mkdocs build --strict
	@if command -v npm > /dev/null; then web/build.sh build/site/web; else \
		echo 'npm was not found: build/site is without the page that runs models in the browser' >&2; fi

WEB_PORT ?= 8000

web:
	web/build.sh build/web
	@echo 'open http://127.0.0.1:$(WEB_PORT)/'
	@python3 -m http.server $(WEB_PORT) --bind 127.0.0.1 --directory build/web

lint: setup
	ruff check .
	ruff format --check .
	pre-commit run --all-files --config .ci/prose.yaml
