"""The command line: parses, calls, prints. Heavy imports stand inside the commands that need them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from hw2.errors import Ended, InputError

app = typer.Typer(
    help="Compress a ResNet-50 on Fashion-MNIST to 85,956 parameters, and report on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Profile = Annotated[Optional[str], typer.Option(help="smoke, cpu or full; default: HW2_PROFILE, or the delivered one")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Replace = Annotated[bool, typer.Option("--replace", help="train in the place of another recipe's run")]


def _profile(name: str | None) -> str:
    from hw2.experiments import stages

    if name:
        os.environ["HW2_PROFILE"] = stages.recipes.check_profile(name)
    return stages.default_profile()


@app.command()
def data(root: Annotated[Optional[Path], typer.Option(help="folder of the data set")] = None) -> None:
    """Find, check or fetch the data set; print where it is and its digests."""
    from hw2 import data as fashion

    found = fashion.load(root)
    print(found.folder)
    for name, (digest, _) in fashion.FILES.items():
        print(f"{digest}  {name}")


@app.command()
def train(
    stage: Annotated[
        str,
        typer.Argument(
            help="teacher, finalists, distilled, plain, compressed, scratch, unpruned, frontier, arms, ablation, "
            "an arm, or all"
        ),
    ],
    profile: Profile = None,
    seed: Annotated[Optional[int], typer.Option(min=0, max=99, help="default: 0; all: every seed")] = None,
    device: Device = "auto",
    weights: Annotated[Optional[Path], typer.Option(help="teacher: the course's resnet-50.pth")] = None,
    temperature: Annotated[Optional[float], typer.Option(help="distilled: another than the search's")] = None,
    alpha: Annotated[Optional[float], typer.Option(help="distilled: another weight of the KL term")] = None,
    ratio: Annotated[Optional[float], typer.Option(help="compressed: share of the channels to remove")] = None,
    budget: Annotated[Optional[int], typer.Option(help="compressed: parameters to keep at most")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="print time and disk, train nothing")] = False,
    replace: Replace = False,
) -> None:
    """Train a stage and what it needs, or load it where a finished run is there."""
    from hw2 import training
    from hw2.experiments import recipes, stages
    from hw2.experiments import store as runs

    if ratio is not None and budget is not None:
        raise InputError("--ratio and --budget both say how much to prune: give one of them")
    if ratio is not None:
        recipes.check_ratio(ratio)
    if temperature is not None:
        recipes.check_temperature(temperature)
    if alpha is not None:
        recipes.check_alpha(alpha)
    chosen = _profile(profile)
    one = seed or 0
    walks = range(recipes.NUMBERS[chosen]["seeds"]) if seed is None else [seed]
    if estimate:
        print(recipes.estimate(chosen, len(walks), runs.lacks_bfloat16(training.pick_device(device))))
        return

    def share() -> float:
        from hw2 import networks, pruning

        if budget is not None:
            return pruning.ratio_for(networks.WIDTHS, budget)
        return recipes.RATIO if ratio is None else ratio

    def every(groups: dict) -> list:
        return [run for group in groups.values() for run in group]

    together = {
        "finalists": lambda: every(stages.finalists(chosen, device, replace)),
        "arms": lambda: every(stages.arms(chosen, device, replace)),
        "ablation": lambda: every(stages.ablation(chosen, device, replace)),
        "frontier": lambda: every(stages.frontier(chosen, device, replace)),
    }
    steps = together | {
        "teacher": lambda: [stages.teacher(chosen, one, weights, device, replace)],
        "plain": lambda: [stages.plain(chosen, one, device, replace)],
        "distilled": lambda: [stages.distilled(chosen, one, device, temperature, alpha, replace)],
        "compressed": lambda: [stages.compressed(chosen, one, device, share(), replace)],
        "scratch": lambda: [stages.scratch(chosen, one, device, replace)],
        "unpruned": lambda: [stages.unpruned(chosen, one, device, replace)],
        "all": lambda: [run for number in walks for run in stages.walk(chosen, number, device, replace)],
        **{name: lambda name=name: [stages.arm(name, chosen, one, device, replace)] for name in recipes.ARMS},
        **{name: lambda name=name: [stages.ablated(name, chosen, one, device, replace)] for name in recipes.ABLATION},
    }
    if stage not in steps:
        raise InputError(f"stage {stage!r}: expected one of {', '.join(steps)}")
    given = {
        "--weights": weights,
        "--temperature": temperature,
        "--alpha": alpha,
        "--ratio": ratio,
        "--budget": budget,
    }
    takes = {
        "teacher": ("--weights",),
        "distilled": ("--temperature", "--alpha"),
        "compressed": ("--ratio", "--budget"),
    }
    for name, value in given.items():
        if value is not None and name not in takes.get(stage, ()):
            raise InputError(f"{name}: `hw2 train {stage}` takes none")
    if seed and stage in together:
        raise InputError(f"--seed: `hw2 train {stage}` trains all of its seeds; an arm alone takes a seed")
    with training.ending_at_an_epoch():
        found = steps[stage]()
    for run in found:
        test = "not read" if run.test_accuracy is None else f"{run.test_accuracy:.2%}"
        print(f"{run.name}: {run.metrics['parameters']:,} parameters, validation {run.val_accuracy:.2%}, test {test}")


@app.command()
def tune(
    profile: Profile = None,
    device: Device = "auto",
    storage: Annotated[Optional[str], typer.Option(help="the study's database URL; default: SQLite")] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes on this machine")] = 1,
    replace: Replace = False,
) -> None:
    """Search temperature and alpha on the validation split."""
    from hw2 import training
    from hw2.experiments import search as tuning
    from hw2.experiments import stages

    chosen = _profile(profile)
    same = ["tune", "--profile", chosen, "--device", device, *(("--storage", storage) if storage else ())]
    same += ["--replace"] * replace
    stages.teacher(chosen, device=device)  # before the workers start, or each would train it
    with training.ending_at_an_epoch(), tuning.helpers(workers - 1, same):
        found = stages.tuned(chosen, device, storage, replace)
    print(found.to_string(index=False))
    for temperature, alpha in tuning.finalists(found):
        print(f"finalist: temperature {temperature:g}, alpha {alpha:g}")


@app.command()
def report(check: Annotated[bool, typer.Option("--check", help="change nothing; exit 1 if stale")] = False) -> None:
    """Write figures/, report.md and submission.csv from runs/."""
    from hw2.report import write as writer

    if not check:
        print(f"written to {writer.write()}")
        return
    problems = writer.stale()
    print("\n".join(problems) or "figures, report and submission are what runs and code make")
    sys.exit(bool(problems))


@app.command()
def grade(
    weights: Annotated[Optional[Path], typer.Option(help="default: the delivered network")] = None,
    submission: Annotated[Optional[Path], typer.Option(help="default: submission.csv")] = None,
) -> None:
    """Grade by the assignment's rubric; exit 1 when something fails."""
    from hw2 import grading
    from hw2.data import fashion_mnist
    from hw2.experiments import stages
    from hw2.report.write import output

    profile, out = stages.default_profile(), output()
    lines, _ = grading.grade(
        weights or stages.delivered().weights,
        submission or out / "submission.csv",
        out / "report.md",
        fashion_mnist(),
        profile,
    )
    print(grading.table(lines))
    # Smoke runs are too short to reach any threshold: their grades are shown and not enforced.
    sys.exit(grading.failed(lines) and profile != "smoke")


@app.command()
def submit(out: Annotated[Optional[Path], typer.Option(help="default: submission.csv")] = None) -> None:
    """Write the delivered network's predictions of the test images."""
    from hw2 import grading
    from hw2.report import write as writer

    path = out or writer.output() / "submission.csv"
    grading.write_submission(path, writer.delivered_classes())
    print(path)


@app.command()
def bench(
    repeats: Annotated[int, typer.Option(min=1, help="rounds; every case runs once in each")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON in place of a table")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="add to runs/bench.json, which the report shows")] = False,
) -> None:
    """Measure speeds side by side on an idle machine: a quarter of an hour or so."""
    import json

    from hw2.experiments import store as runs
    from hw2.tools import bench as measuring

    found = measuring.bench(repeats)
    print(json.dumps(found, indent=1) if as_json else measuring.table(found))
    if keep:
        with runs.changing("cpu"):
            runs.write_json(runs.root() / "bench.json", {"sittings": [*runs.sittings(), found]})


@app.command()
def replay(
    names: Annotated[Optional[list[str]], typer.Argument(help="as in runs/; default: the delivered chain")] = None,
    every: Annotated[bool, typer.Option("--all", help="every finished run")] = False,
    device: Device = "auto",
) -> None:
    """Train the first steps of runs again and evaluate their weights: are they as recorded? Exit 1 where not."""
    from hw2 import training
    from hw2.experiments import replay as again

    known = {run.name: run for run in again.every()}
    if strange := sorted(set(names or ()) - known.keys()):
        raise InputError(f"no finished run {strange[0]!r}; expected one of {', '.join(known)}")
    chosen = list(known.values()) if every else [known[name] for name in names or ()] or again.chain()
    failed = False
    for run in chosen:
        where = training.pick_device(device)
        problems = again.replay(run, where)
        failed |= bool(problems)
        told = [*(problems or ["as recorded"]), *filter(None, [again.unchecked(run, where)])]
        print(f"{run.name}: {'; '.join(told)}", flush=True)
    sys.exit(failed)


@app.command()
def predict(images: Annotated[list[Path], typer.Argument(help="pictures of any size, colour or grey")]) -> None:
    """Class and probabilities of pictures."""
    import torch

    import hw2
    from hw2 import pictures
    from hw2.data import CLASSES

    read = torch.stack([pictures.read(path) for path in images])
    for path, values in zip(images, pictures.probabilities(hw2.load(), read), strict=True):
        ranked = values.argsort(descending=True)[:3].tolist()
        print(f"{path}: " + ", ".join(f"{CLASSES[label]} {values[label]:.1%}" for label in ranked))


@app.command()
def export(
    weights: Annotated[Optional[Path], typer.Option(help="default: the delivered network")] = None,
    out: Annotated[Optional[Path], typer.Option(help="default: model.onnx; model.int8.onnx with --int8")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit integers in place of float32")] = False,
) -> None:
    """Write a network as an ONNX file; count the validation images that ONNX Runtime gets right with it."""
    from tempfile import TemporaryDirectory

    from hw2 import inference, networks, training
    from hw2.data import fashion_mnist
    from hw2.experiments import stages

    path = out or Path("model.int8.onnx" if int8 else "model.onnx")
    network = networks.load(weights or stages.delivered().weights)
    data = fashion_mnist()
    calibration, validation = training.parts(data, 1000, 5000)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed: a reader sees the old file or the new one.
        with TemporaryDirectory(prefix=".export-", dir=path.parent) as aside:
            made = Path(aside) / path.name
            inference.export(network, made)
            if int8:
                inference.quantise(made, made, data.train_images[calibration])
            made.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}); give another file by --out") from None
    right = inference.correct(inference.session(path), data.train_images[validation], data.train_labels[validation])
    print(f"{path}: {path.stat().st_size:,} bytes, {right:,} of {len(validation):,} validation images correct")


def main() -> None:
    """Entry point: input that cannot be used, or a disk that takes nothing, gets one line and exit status 2."""
    try:
        app()
    except InputError as error:
        print("hw2: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except Ended as error:
        print(f"hw2: {error}", file=sys.stderr)
        sys.exit(143)  # as SIGTERM ends a process
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except OSError as error:  # a full disk, a folder that is read-only: what was done up to here stays
        print("hw2: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
