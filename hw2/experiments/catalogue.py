"""What is trained: EXPERIMENTS, one row each.

The first row of a group is the one that the others are compared with. A row is trained by
`hw2 train NAME`. Its numbers are those of a profile.
"""

from dataclasses import dataclass, field, replace
from functools import partial

from hw2.assignment import NARROW, RATIO
from hw2.errors import choose
from hw2.experiments.profiles import PROFILES


@dataclass(frozen=True)
class Experiment:
    """A row. Its fields are named as the recipe's where they become a part of it."""

    words: str  # in tables, figures, help
    question: str  # what its numbers answer
    group: str  # chain, finalists, arms, ablation, frontier, short
    numbers: str  # key of the profile's numbers
    seeds: str = "chain"  # key of the profile's seeds
    teacher: str | None = None  # row whose soft targets are learnt from; None: labels alone
    setting: str | None = None  # temperature and alpha: chosen, finalist-1 or finalist-2
    parent: str | None = None  # row whose network, of the same seed, is pruned or trained on
    widths: tuple[int, ...] | None = None
    ratio: float | None = None  # None: nothing is pruned
    change: dict = field(default_factory=dict)  # other fields of the recipe
    keep: tuple[str, ...] = ("weights",)  # or group_norms, or classes of the validation images


CHOSEN = {"teacher": "teacher", "setting": "chosen"}  # distilled as the search chose
FIRST = "the arm that the others are held against"
BETTER = "does a better teacher teach better?"
STRENGTH = "does the regulariser's strength matter?"
LENGTH = "what does longer training bring?"

chain = partial(Experiment, group="chain", numbers="student")
continued = partial(Experiment, group="chain", numbers="continued", **CHOSEN)
finalist = partial(
    Experiment,
    question="does the search's ranking hold in longer training?",
    group="finalists",
    numbers="finalist",
    seeds="search",
    teacher="teacher",
    keep=("classes",),
)
arm = partial(
    Experiment, group="arms", numbers="study", seeds="studies", keep=("classes",), **CHOSEN
)
study = partial(Experiment, ratio=RATIO, keep=("classes", "group_norms"), **CHOSEN)
ablation = partial(study, group="ablation", numbers="ablation", seeds="studies", parent="vanilla")
frontier = partial(
    study,
    question="how far can it go?",
    group="frontier",
    numbers="frontier",
    seeds="frontier",
    parent="distilled",
)
short = partial(Experiment, question=LENGTH, group="short", numbers="short")

EXPERIMENTS = {
    "teacher": chain(
        "ResNet-50, the teacher", "what can be learnt from?", numbers="teacher", seeds="first"
    ),
    "distilled": chain("ResNet-14, distilled", "what do soft targets add?", **CHOSEN),
    "compressed": chain(
        "pruned and fine-tuned",
        "what is left at half the size?",
        numbers="compressed",
        parent="distilled",
        ratio=RATIO,
        keep=("weights", "group_norms"),
        **CHOSEN,
    ),
    "plain": chain("ResNet-14, labels alone", "what do labels alone reach?"),
    "narrow": chain(
        "pruned widths, distilled",
        "what do the pruned network's widths reach from random weights?",
        widths=NARROW,
        **CHOSEN,
    ),
    "scratch": continued(
        "pruned widths from scratch",
        "does pruning beat training its widths at once?",
        parent="narrow",
        widths=NARROW,
    ),
    "narrow_plain": chain(
        "pruned widths, labels alone",
        "what do labels alone reach at the pruned network's widths?",
        widths=NARROW,
    ),
    "unpruned": continued(
        "ResNet-14, distilled longer",
        "what are the removed channels worth?",
        parent="distilled",
    ),
    "finalist-1": finalist("finalist 1 of the search", setting="finalist-1"),
    "finalist-2": finalist("finalist 2 of the search", setting="finalist-2"),
    "vanilla": arm("KD with averaged targets", FIRST, keep=("weights", "classes")),
    "labels": arm("the labels alone", "does distillation help?", teacher=None, setting=None),
    "kl_mean": arm(
        "KD with the mean reduction",
        "what does the common bug cost?",
        change={"loss": "kl_mean"},
    ),
    "same_view": arm(
        "KD, targets of the student's own view",
        "do student and teacher need the same view?",
        change={"targets": "same view"},
    ),
    "fixed_teacher": arm(
        "KD, targets of the un-augmented image",
        "do views matter?",
        change={"targets": "identity"},
    ),
    "better_teacher": arm("KD, taught by the distilled ResNet-14", BETTER, teacher="distilled"),
    "pruned": ablation("the whole recipe", FIRST),
    "pruned_directly": ablation(
        "without sparse learning", "what does sparse learning add?", numbers="unsparse"
    ),
    "pruned_labels": ablation(
        "labels alone from sparse learning on",
        "does KD help after pruning?",
        teacher=None,
        setting=None,
    ),
    "pruned_at_random": ablation(
        "channels chosen at random",
        "does it matter which channels leave?",
        change={"importance": "random"},
    ),
    "weak_reg": ablation("a regulariser five times weaker", STRENGTH, change={"reg": 1e-3}),
    "strong_reg": ablation("a regulariser five times stronger", STRENGTH, change={"reg": 2.5e-2}),
    **{
        f"frontier-{ratio:g}": frontier(f"pruned by {ratio:g}", ratio=ratio)
        for ratio in (0.0, 0.2, 0.24, RATIO, 0.5, 0.7)
    },
    "plain-24": short("ResNet-14 alone, 24 epochs"),
    "distilled-24": short("ResNet-14, distilled for 24 epochs", **CHOSEN),
}

# Until `long` takes the place of `full`, `full` keeps the rows that it was trained by.
LATER = (
    "narrow",
    "narrow_plain",
    "better_teacher",
    "pruned_at_random",
    "weak_reg",
    "strong_reg",
    "frontier-0.24",
    "plain-24",
    "distilled-24",
)
TODAY = {name: row for name, row in EXPERIMENTS.items() if name not in LATER} | {
    "scratch": replace(EXPERIMENTS["scratch"], parent=None),
    "unpruned": replace(EXPERIMENTS["unpruned"], parent=None, seeds="first"),
}

Task = tuple[str, int]  # a row and a seed


def rows(profile: str) -> dict[str, Experiment]:
    """The rows of a profile."""
    return TODAY if profile == "full" else EXPERIMENTS


def row(name: str, profile: str) -> Experiment:
    """A row by its name; `InputError` for another name."""
    return choose("experiment", rows(profile), name)


def names(profile: str, group: str | None = None) -> list[str]:
    """The rows of one group or all, in the catalogue's order."""
    return [name for name, item in rows(profile).items() if group in (None, item.group)]


def members(name: str, profile: str) -> list[str]:
    """The rows that a name stands for: all, a group's, or a row's own."""
    known = {"all": names(profile)}
    known |= {item.group: names(profile, item.group) for item in rows(profile).values()}
    known |= {stage: [stage] for stage in rows(profile)}
    return choose("experiment", known, name)


def seeds(name: str, profile: str) -> tuple[int, ...]:
    """The seeds with which a row is trained, its first one first."""
    return choose("profile", PROFILES, profile)["seeds"][row(name, profile).seeds]


def listing(profile: str) -> str:
    """The rows, a line each: group, name, seeds and what is asked."""
    lines = []
    for name, item in rows(profile).items():
        numbers = ",".join(map(str, seeds(name, profile)))
        lines.append(f"{item.group:10} {name:18} seeds {numbers:9} {item.words}: {item.question}")
    return "\n".join(lines)


def teacher(name: str, seed: int, profile: str) -> Task:
    """Row and seed of the run that a row's run learns from: of its own seed, or else the first."""
    source = row(name, profile).teacher
    known = seeds(source, profile)
    return source, seed if seed in known else known[0]
