"""The command line. Heavy imports stand inside the commands that need them."""

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from hw2.errors import InputError, told_in_a_line

app = typer.Typer(
    help="Compress a ResNet-50 on Fashion-MNIST to 85,956 parameters, and report on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def user_path(text: str) -> Path:
    """`~` is the home folder, also in `--out=~/x`, which no shell expands."""
    return Path(os.path.expanduser(text))


def path_option(words: str):
    return typer.Option(parser=user_path, help=words)


Profile = Annotated[
    Optional[str], typer.Option(help="smoke or full; default: HW2_PROFILE, else what is delivered")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Out = Annotated[Optional[Path], path_option("where to write; default: the project's own place")]
Weights = Annotated[Optional[Path], path_option("safetensors; default: the delivered network's")]
Root = Annotated[Optional[Path], path_option("where the data set is; default: HW2_DATA, or data/")]
Name = Annotated[str, typer.Argument(help="a figure's name, as in figures/")]
Replace = Annotated[bool, typer.Option("--replace", help="overwrite a run of another recipe")]
Check = Annotated[bool, typer.Option("--check", help="write nothing, name what is stale")]
Submission = Annotated[Optional[Path], path_option("CSV; default: submission.csv")]
Images = Annotated[list[Path], typer.Argument(parser=user_path, help="PNG, JPEG and the like")]


def _store(profile: str | None):
    from hw2.experiments.store import Store

    return Store(profile)


def refuse(what: str, **options) -> None:
    """`InputError` for an option that this call cannot honour."""
    for name, value in options.items():
        if value is not None and value is not False and value != "":
            option = f"--{name}" if name != "name" else repr(value)
            raise InputError(f"{what} takes no {option}; leave it out")


def _network(weights: Path | None, profile: str | None):
    from hw2 import networks

    return networks.load(weights) if weights else _store(profile).delivered.network()


@app.command()
def data(root: Root = None) -> None:
    """Find, check or fetch the data set; print where it is and its digests."""
    from hw2 import data as fashion

    dataset = fashion.load(root)
    print(dataset.folder)
    for name, digest in fashion.FILES.items():
        print(f"{digest}  {name}")


@app.command()
def train(
    name: Annotated[
        str, typer.Argument(help="an experiment, a group of them, or all; --list shows them")
    ] = "",
    profile: Profile = None,
    seed: Annotated[
        Optional[int], typer.Option(min=0, max=99, help="default: every seed of the profile")
    ] = None,
    device: Device = "auto",
    weights: Annotated[
        Optional[Path], path_option("teacher: the course's resnet-50.pth, in place of its run")
    ] = None,
    jobs: Annotated[
        Optional[int], typer.Option(min=1, help="processes, only with `all`; default: one a core")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="print the time that this took before, train nothing")
    ] = False,
    show: Annotated[
        bool, typer.Option("--list", help="list the experiments and the question of each")
    ] = False,
    replace: Replace = False,
) -> None:
    """Train experiments and what they need, or load them. Evaluates no test image."""
    from hw2.errors import ending_at_an_epoch
    from hw2.experiments import catalogue, environment, plan, walk

    runs = _store(profile)
    environment.pick_device(device)
    if show:
        refuse("--list", name=name, seed=seed, weights=weights, jobs=jobs)
        refuse("--list", estimate=estimate, replace=replace)
        print(catalogue.listing(runs.profile))
        return
    todo = plan.members(name or ("all" if estimate else name), seed, runs.profile)
    if estimate:
        refuse("--estimate", weights=weights, jobs=jobs, replace=replace)
        print(plan.estimate(plan.in_order(todo, runs.profile), runs))
        return
    call = f"`hw2 train {name}`"
    if name == "all":
        refuse(call, seed=seed)
    else:
        refuse(call, jobs=jobs)
    if name != "teacher":
        refuse(call, weights=weights)
    with ending_at_an_epoch():
        if name == "all":
            failures = walk.train_all(runs.profile, jobs, device, replace)
        else:
            failures = walk.train_listed(todo, runs.profile, device, replace, weights)
    if failures:
        for (row, number), why in failures.items():
            print(f"hw2: {row}, seed {number}, and what needs it: {why}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def tune(profile: Profile = None, device: Device = "auto", replace: Replace = False) -> None:
    """Search temperature and alpha on the validation split; several processes may share it."""
    from hw2.errors import ending_at_an_epoch
    from hw2.experiments import environment, obtain, search

    chosen = _store(profile).profile
    on_cpu = environment.pick_device(device).type == "cpu"
    with ending_at_an_epoch(), environment.threads(1 if on_cpu else environment.cores()):
        obtain.obtain("teacher", profile=chosen, device=device)
        search.obtain_trials(chosen, device, replace)
    temperature, alpha = _store(chosen).setting("best")
    print(f"T = {temperature:g}, alpha = {alpha:g} has the highest mean validation accuracy")


@app.command()
def deliver(profile: Profile = None) -> None:
    """Name the delivered network; read the test set once for each recipe of the chain."""
    from hw2.experiments.ledger import deliver

    print(deliver(_store(profile).profile))


@app.command()
def report(check: Check = False, out: Out = None, profile: Profile = None) -> None:
    """Write all that is made of runs: figures, report, model card, submission, README's result."""
    from hw2.report import write

    chosen = _store(profile).profile
    if not check:
        print(write.write(chosen, out))
        return
    problems = write.stale(chosen, out)
    print("\n".join(problems) or "report, figures and submission are what the runs say")
    raise typer.Exit(bool(problems))


@app.command()
def figure(name: Name, out: Out = None, profile: Profile = None) -> None:
    """Draw one figure from the runs."""
    from hw2.report import write

    print(*write.write_figure(name, _store(profile).profile, out), sep="\n")


@app.command()
def grade(weights: Weights = None, submission: Submission = None, profile: Profile = None) -> None:
    """The rubric, line by line; exit status 1 when something fails. Records nothing."""
    from hw2 import grading

    chosen = _store(profile).profile
    lines = grading.grade(weights, submission, chosen)
    print(grading.text(lines))
    failed = any(line.ok is False for line in lines)
    raise typer.Exit(failed and chosen != "smoke")  # smoke networks know little


@app.command()
def submit(weights: Weights = None, out: Out = None, profile: Profile = None) -> None:
    """Write a network's predictions for the test images, submission.csv."""
    from hw2 import data, files, grading, training
    from hw2.experiments.run import output

    out = out or output(_store(profile).profile) / "submission.csv"
    classes = training.predict(_network(weights, profile), data.fashion_mnist().test_images)
    files.write_text(out, grading.submission_text(classes))
    print(out)


@app.command()
def predict(images: Images, weights: Weights = None, profile: Profile = None) -> None:
    """The three likeliest classes of pictures; a line and status 2 where one cannot be read."""
    from hw2 import pictures

    if weights:
        refuse("--weights", profile=profile)
    network = _network(weights, profile)
    status = 0
    for path in images:
        try:
            likeliest = list(pictures.predict(network, path).items())[:3]
            print(f"{path}: " + ", ".join(f"{name} {value:.1%}" for name, value in likeliest))
        except InputError as error:
            print(f"hw2: {error}", file=sys.stderr)
            status = 2
    raise typer.Exit(status)


def main() -> None:
    with told_in_a_line():
        app()
