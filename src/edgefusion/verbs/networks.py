"""Verbs of the researcher: train, compare, judge."""

from __future__ import annotations

import json
from pathlib import Path

from edgefusion.config import SEARCH_SPACE, ChannelRecipe, CompareConfig, SearchConfig, SplitConfig, TrainConfig
from edgefusion.verbs.arguments import Arguments, integers, names


def train(arguments: list[str]) -> None:
    """Train one network on a study and save it as a bundle."""
    parser = Arguments(train)
    parser.add("study", type=str, help="folder of a study, or s3://bucket/study")
    parser.add("--model", default="edgefusion-unet", help="see edgefusion info")
    parser.add("-o", "--output", type=Path, required=True, help="folder of the bundle")
    parser.add("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add("--start", type=str, help="bundle of the same network and channels whose weights to start from")
    parser.add("--validation-patients", default="", help="hold out these patients; by default a fifth of them")
    parser.add("--network", type=dict, default={}, help="arguments of EdgeFusion-UNet that differ from its defaults")
    parser.add("--devices", type=int, default=1, help="processes on this machine that share each batch")
    parser.add(
        "--nodes",
        type=int,
        default=1,
        help="machines with so many processes, each told NODE_RANK (0, 1, ...), "
        "MASTER_ADDR and MASTER_PORT; or use torchrun",
    )
    parser.add("--config", action="config", help="YAML file with any of these settings")
    parser.add("--train", type=TrainConfig, default=TrainConfig())
    parser.add("--recipe", type=ChannelRecipe, default=ChannelRecipe())
    given = parser.read(arguments)
    from edgefusion.data.splits import make_splits
    from edgefusion.data.study import Study
    from edgefusion.models.zoo import check_name
    from edgefusion.training.train import train as train_network

    check_name(given.model)
    study = Study.load(given.study)
    split = make_splits(study, SplitConfig(folds=1, validation_patients=names(given.validation_patients)))[0]
    train_network(
        study,
        given.model,
        given.output,
        given.train,
        given.recipe,
        split,
        given.resume,
        network=dict(given.network),
        start=given.start,
        devices=given.devices,
        nodes=given.nodes,
    )
    print(given.output)


def compare(arguments: list[str]) -> None:
    """Cross-validate networks on a study, by patient, test the differences, and write a report."""
    parser = Arguments(compare)
    parser.add("study", type=str, help="folder of a study, or s3://bucket/study")
    parser.add("-o", "--output", type=Path, required=True, help="folder of the run; an interrupted run goes on")
    parser.add("--models", default=",".join(CompareConfig().models), help="names, separated by commas")
    parser.add("--folds", type=int, default=5, help="folds by patient; 1 holds out a fifth of the patients")
    parser.add("--validation-patients", default="", help="hold out exactly these patients instead")
    parser.add("--without-patients", default="", help="neither train on these patients nor judge them")
    parser.add("--split-seed", type=int, default=0)
    parser.add("--baseline-channels", choices=["raw", "all"], default="raw", help="what the baselines see")
    parser.add("--flip-averaging", type=bool, default=False, help="average with the mirrored frame, for all models")
    parser.add("--seeds", default="", help="train every network once with each of these; by default with train.seed")
    parser.add("--pretrained", default="", help="folder of a comparison whose weights the networks start from")
    parser.add("--network", type=dict, default={}, help="arguments of EdgeFusion-UNet that differ from its defaults")
    parser.add("--jobs", type=int, default=1, help="trainings side by side; they share the cores")
    parser.add("--ray", help="train on a Ray cluster instead: auto, local, or HOST:PORT of its head")
    parser.add("--cpus-per-task", type=int, default=1, help="cores of a training on a Ray cluster")
    parser.add_json()
    parser.add("--config", action="config", help="YAML file with any of these settings")
    parser.add("--train", type=TrainConfig, default=TrainConfig())
    parser.add("--recipe", type=ChannelRecipe, default=ChannelRecipe())
    given = parser.read(arguments)
    from edgefusion.evaluation.answer import text_table
    from edgefusion.training.crossval import compare as compare_networks

    config = CompareConfig(
        models=names(given.models),
        baseline_channels=given.baseline_channels,
        flip_averaging=given.flip_averaging,
        recipe=given.recipe,
        train=given.train,
        network=dict(given.network),
        pretrained=given.pretrained,
        seeds=integers(given.seeds),
        split=SplitConfig(
            given.folds, names(given.validation_patients), given.split_seed, names(given.without_patients)
        ),
    )
    if given.ray:
        from edgefusion.cluster.compare import compare_on_ray

        report = compare_on_ray(given.study, given.output, config, address=given.ray, cpus_per_task=given.cpus_per_task)
    else:
        report = compare_networks(given.study, given.output, config, jobs=given.jobs)
    summary = json.loads((given.output / "summary.json").read_text(encoding="utf-8"))
    if given.json:
        print(json.dumps(summary, indent=2))
    else:
        print(text_table(summary))
        print(report)


def search(arguments: list[str]) -> None:
    """Search for the settings with which a network is best on a study's validation patients."""
    parser = Arguments(search)
    parser.add("study", type=Path, help="folder of a study")
    parser.add("--model", default="edgefusion-unet", help="see edgefusion info")
    parser.add("-o", "--output", type=Path, required=True, help="folder of the search; an interrupted search goes on")
    parser.add("--trials", type=int, default=20, help="how many settings are tried in all")
    parser.add("--space", type=dict, default=SEARCH_SPACE, help="what is searched, see configs/search.yaml")
    parser.add("--sampler", choices=["tpe", "random"], default="tpe", help="learn from earlier trials, or draw")
    parser.add("--seed", type=int, default=0, help="seeds what is proposed")
    parser.add("--folds", type=int, default=1, help="folds by patient a trial; 1 holds out a fifth of the patients")
    parser.add("--validation-patients", default="", help="judge trials by exactly these patients instead")
    parser.add("--without-patients", default="", help="neither train on these patients nor judge by them")
    parser.add("--split-seed", type=int, default=0)
    parser.add("--flip-averaging", type=bool, default=False, help="average with the mirrored frame")
    parser.add("--network", type=dict, default={}, help="arguments of EdgeFusion-UNet that differ from its defaults")
    parser.add("--ray", help="search on a Ray cluster: auto, local, or HOST:PORT of its head")
    parser.add("--cpus-per-task", type=int, default=1, help="cores of a training on a Ray cluster")
    parser.add("--config", action="config", help="YAML file with any of these settings")
    parser.add("--train", type=TrainConfig, default=TrainConfig())
    parser.add("--recipe", type=ChannelRecipe, default=ChannelRecipe())
    given = parser.read(arguments)
    from edgefusion.cluster.search import search as search_settings

    base = CompareConfig(
        models=(given.model,),
        flip_averaging=given.flip_averaging,
        recipe=given.recipe,
        train=given.train,
        network=dict(given.network),
        split=SplitConfig(
            given.folds, names(given.validation_patients), given.split_seed, names(given.without_patients)
        ),
    )
    config = SearchConfig(base, dict(given.space), given.sampler, given.seed)
    print(search_settings(given.study, given.output, config, given.trials, given.ray, given.cpus_per_task))


def evaluate(arguments: list[str]) -> None:
    """Judge a bundle on a labelled study."""
    parser = Arguments(evaluate)
    parser.add("bundle", type=str, help="folder of a bundle, or brachial-plexus or regional, which ship along")
    parser.add("study", type=str, help="folder of a study, or s3://bucket/study")
    parser.add("-o", "--output", type=Path, required=True, help="folder for the tables")
    parser.add("--split", type=Path, help="a run's splits.json: judge on the held-out patients only")
    parser.add("--flip-averaging", action="store_true", help="average with the mirrored frame")
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.evaluation.answer import text_table
    from edgefusion.evaluation.evaluate import evaluate as evaluate_bundle

    summary = evaluate_bundle(given.bundle, given.study, given.output, given.split, given.flip_averaging)
    print(json.dumps(summary, indent=2) if given.json else text_table(summary))
