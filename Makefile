# Everything sets itself up: the first call makes .venv and installs, later calls start at once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The published results, from the data sets to the tables; resumes where it stopped. Hours on two cores.
RUNS ?= runs
EDGEFUSION_DATA ?= ../shared/data
KAGGLE_TERMS := Kaggle ultrasound-nerve-segmentation (2016), competition rules: research use, no redistribution
# The same network with the denoised and the edge channel: what the channels are worth.
CONTROL := --models edgefusion-unet --recipe.channels '[raw,dpad,edges]'
# The same network, normalised frame by frame.
INSTANCE := --models edgefusion-unet --network '{normalisation: instance}'
# Half of the shallow features so, beside the U-Net of its multiply-adds; batches drawn anew for both.
MIXED := --models edgefusion-unet,unet-matched --network '{normalisation: mixed}' --train.reshuffle true
USGRA_TERMS := usgra-seg by T. M. K. (tmkand), CC-BY 4.0

.PHONY: install demo test lint format fuzz bench results clean

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/edgefusion demo -o demo

test: $(STAMP)
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(STAMP)
	$(BIN)/python -m pip install -q -e '.[fuzz]'
	$(BIN)/python fuzz/run.py --seconds 300

bench: $(STAMP)
	$(BIN)/edgefusion bench

results: $(STAMP) $(RUNS)/kaggle/study.yaml $(RUNS)/usgra/study.yaml $(RUNS)/pretraining-phantoms/study.yaml
	$(BIN)/edgefusion compare $(RUNS)/pretraining-phantoms --config configs/pretraining.yaml -o $(RUNS)/pretraining
	$(BIN)/edgefusion compare $(RUNS)/kaggle --config configs/kaggle-fixed.yaml --pretrained $(RUNS)/pretraining -o $(RUNS)/kaggle-fixed
	$(BIN)/edgefusion compare $(RUNS)/pretraining-phantoms --config configs/pretraining.yaml $(CONTROL) -o $(RUNS)/pretraining-channels
	$(BIN)/edgefusion compare $(RUNS)/kaggle --config configs/kaggle-fixed.yaml $(CONTROL) --pretrained $(RUNS)/pretraining-channels -o $(RUNS)/kaggle-fixed-channels
	$(BIN)/edgefusion compare $(RUNS)/pretraining-phantoms --config configs/pretraining.yaml $(INSTANCE) -o $(RUNS)/pretraining-instance
	$(BIN)/edgefusion compare $(RUNS)/kaggle --config configs/kaggle-fixed.yaml $(INSTANCE) --pretrained $(RUNS)/pretraining-instance -o $(RUNS)/kaggle-fixed-instance
	$(BIN)/edgefusion compare $(RUNS)/pretraining-phantoms --config configs/pretraining.yaml $(MIXED) -o $(RUNS)/pretraining-mixed
	$(BIN)/edgefusion compare $(RUNS)/kaggle --config configs/kaggle-fixed.yaml $(MIXED) --pretrained $(RUNS)/pretraining-mixed -o $(RUNS)/kaggle-fixed-mixed
	$(BIN)/edgefusion compare $(RUNS)/usgra --config configs/usgra.yaml -o $(RUNS)/usgra-compare
	test -f $(RUNS)/regional/bundle.yaml || $(BIN)/edgefusion train $(RUNS)/usgra --config configs/regional.yaml --resume -o $(RUNS)/regional
	$(BIN)/python benchmarks/ablation.py $(RUNS)/kaggle -o $(RUNS)/ablation --jobs 2
	$(BIN)/python benchmarks/ablation.py $(RUNS)/kaggle --configs configs/live -o $(RUNS)/ablation --jobs 2
	$(BIN)/python benchmarks/few_labels.py $(RUNS)/kaggle --whole $(RUNS)/ablation -o $(RUNS)/few-labels --jobs 2
	$(BIN)/edgefusion compare $(RUNS)/usgra --config configs/usgra.yaml $(INSTANCE) -o $(RUNS)/usgra-instance
	$(BIN)/python benchmarks/comparison_table.py $(RUNS)/kaggle-fixed --control $(RUNS)/kaggle-fixed-channels
	$(BIN)/python benchmarks/comparison_table.py $(RUNS)/usgra-compare
	$(BIN)/python benchmarks/comparison_table.py $(RUNS)/kaggle-fixed --control $(RUNS)/kaggle-fixed-instance
	$(BIN)/python benchmarks/comparison_table.py $(RUNS)/kaggle-fixed --control $(RUNS)/kaggle-fixed-mixed
	$(BIN)/python benchmarks/comparison_table.py $(RUNS)/kaggle-fixed-mixed
	$(BIN)/python benchmarks/cross_study.py $(RUNS)/kaggle-fixed $(RUNS)/usgra
	$(BIN)/python benchmarks/cross_study.py $(RUNS)/kaggle-fixed-instance $(RUNS)/usgra
	$(BIN)/python benchmarks/cross_study.py $(RUNS)/kaggle-fixed-mixed $(RUNS)/usgra
	$(BIN)/python benchmarks/cross_study.py $(RUNS)/usgra-compare $(RUNS)/kaggle --split $(RUNS)/kaggle-fixed/splits.json --also regional
	$(BIN)/python benchmarks/live_tradeoff.py $(RUNS)/ablation
	$(BIN)/python benchmarks/agreement.py $(RUNS)/kaggle-fixed $(RUNS)/kaggle

$(RUNS)/kaggle/study.yaml: | $(STAMP)
	$(BIN)/edgefusion ingest $(EDGEFUSION_DATA)/kaggle-nerve/train -o $(@D) --terms "$(KAGGLE_TERMS)"

$(RUNS)/usgra/study.yaml: | $(STAMP)
	$(BIN)/edgefusion ingest $(EDGEFUSION_DATA)/usgra -o $(@D) --terms "$(USGRA_TERMS)"

$(RUNS)/pretraining-phantoms/study.yaml: | $(STAMP)
	$(BIN)/edgefusion phantom -o $(@D) --patients 500 --frames 3 --seed 1

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
