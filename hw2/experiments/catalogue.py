"""What is trained: EXPERIMENTS, one row each. From it come recipes, help, walk, tables, estimate and provenance.

A variant is a row with a change. The first row of a group is the one that the others are compared with.
"""

from dataclasses import dataclass, replace

from hw2.assignment import NARROW, RATIO
from hw2.errors import InputError, Named
from hw2.experiments import recipes
from hw2.experiments.profiles import PROFILES
from hw2.experiments.recipes import CompressedRecipe, Recipe, StudentRecipe, TeacherRecipe, TuningRecipe
from hw2.training import Fit


@dataclass(frozen=True)
class Experiment:
    """A row. Fields are named as the recipe's where they become a part of it."""

    words: str  # in tables, figures, help
    question: str  # what its numbers answer
    group: str  # chain, choices, finalists, arms, ablation, frontier
    numbers: str  # key of the profile
    teacher: str | None = None  # row whose soft targets are learnt from, of the same seed or else of its first
    setting: str | None = None  # temperature and alpha: chosen, finalist-1, finalist-2
    parent: str | None = None  # row whose network is pruned, of the same seed
    seeds: str = "walk"  # key of the profile's seeds
    longer: str | None = None  # one schedule of its own epochs and that row's; `itself`: without sparse learning
    widths: tuple[int, ...] | None = None
    ratio: float | None = None
    change: tuple[tuple[str, object], ...] = ()  # fields of the recipe, or of its `fit` as fit.NAME
    keep: tuple[str, ...] = ("weights",)  # or group_norms; logits, classes: of validation images

    @property
    def kind(self) -> type[Recipe]:
        if self.group == "chain" and self.numbers == "teacher":
            return TeacherRecipe
        return CompressedRecipe if self.parent else StudentRecipe


_CHOSEN = {"teacher": "teacher", "setting": "chosen"}
_PRUNED = {"numbers": "compressed", "parent": "distilled", "ratio": RATIO, "keep": ("weights", "group_norms")}
_CHOICE = {"group": "choices", "numbers": "student", "seeds": "choices", "longer": "compressed", "widths": NARROW}
_ARM = {"group": "arms", "numbers": "study", "seeds": "arms", "keep": ("logits",)}
_ABLATION = {"group": "ablation", "seeds": "arms", "keep": ("classes", "group_norms")}
_CUT = _ABLATION | {"numbers": "study pruning", "parent": "vanilla", "ratio": RATIO}
_FRONTIER = _CHOSEN | {"group": "frontier", "numbers": "frontier", "parent": "distilled", "seeds": "frontier"}

EXPERIMENTS = Named("experiment", {
    "teacher": Experiment("ResNet-50, the teacher", "what can be learnt from?", "chain", "teacher", seeds="first"),
    "plain": Experiment("ResNet-14 alone", "what do labels alone reach?", "chain", "student"),
    "distilled": Experiment("ResNet-14, distilled", "what do soft targets add?", "chain", "student", **_CHOSEN),
    "compressed": Experiment("pruned and fine-tuned", "what is left at half the size?", "chain", **_PRUNED, **_CHOSEN),
    "scratch": Experiment(
        "the same widths, distilled from scratch", "does pruning beat training its widths at once?", "chain", "student",
        longer="compressed", widths=NARROW, **_CHOSEN,
    ),
    "unpruned": Experiment(
        "ResNet-14, distilled as long", "what are the removed channels worth?", "chain", "student",
        seeds="first", longer="compressed", **_CHOSEN,
    ),
    "pad_1": Experiment(
        "`scratch`, moved by one pixel", "does less augmentation do better in long training?", **_CHOICE | _CHOSEN,
        change=(("pad", 1),),
    ),
    "pad_0": Experiment(
        "`scratch`, mirrored alone", "does less augmentation do better in long training?", **_CHOICE | _CHOSEN,
        change=(("pad", 0),),
    ),
    "student_teaches": Experiment(
        "`scratch`, taught by `unpruned`", "does a better teacher teach better?", **_CHOICE | {"setting": "chosen"},
        teacher="unpruned", change=(("temperature", 4.0), ("alpha", 0.9)),
    ),
    "new_views": Experiment(
        "`scratch`, a new view every epoch", "do views that come again cost accuracy?", **_CHOICE | _CHOSEN,
        change=(("views", 0),),
    ),
    **{
        f"finalist-{number}": Experiment(
            f"finalist {number} of the search", "does the search's ranking hold in longer training?", "finalists",
            "finalist", "teacher", f"finalist-{number}", seeds="search", keep=("logits",),
        )
        for number in (1, 2)
    },
    "vanilla": Experiment(
        "vanilla KD", "the arm that the others are held against", **_ARM | _CHOSEN | {"keep": ("weights", "logits")}
    ),
    "labels": Experiment("the labels alone", "does distillation help?", **_ARM),
    "kl_mean": Experiment(
        "KD with the mean reduction", "what does the common bug cost?", **_ARM | _CHOSEN, change=(("loss", "kl_mean"),)
    ),
    "same_view": Experiment(
        "KD, targets of the student's own view", "do student and teacher need the same view?", **_ARM | _CHOSEN,
        change=(("targets", "same view"),),
    ),
    "fixed_teacher": Experiment(
        "KD, targets of the un-augmented image", "do views matter?", **_ARM | _CHOSEN, change=(("targets", "identity"),)
    ),
    "pruned": Experiment("the whole recipe", "the arm that the others are held against", **_CUT | _CHOSEN),
    "pruned_directly": Experiment(
        "without sparse learning", "what does sparse learning add?", **_CUT | _CHOSEN, longer="itself"
    ),
    "pruned_labels": Experiment("labels alone from sparse learning on", "does KD help after pruning?", **_CUT),
    **{
        f"frontier-{ratio:g}": Experiment(
            f"pruned by {ratio:g}", "how far can it go?", **_FRONTIER, ratio=ratio, keep=("classes", "group_norms")
        )
        for ratio in (0.0, 0.2, RATIO, 0.5, 0.7)
    },
})  # fmt: skip


class Recipes:
    """A profile's recipes. What they ask of its runs, `store.Store` answers; here the answers are made up."""

    def __init__(self, profile: str):
        self.profile, self.numbers = profile, PROFILES[profile]

    def setting(self, which: str) -> tuple[float, float]:
        """Temperature and alpha: `best` of the search, those of `finalist-1` or `-2`, or `chosen`."""
        return 3.0, 0.5  # what no row changes anything to

    def course_file(self, seed: int) -> str | None:
        """SHA-256 of the file that stands in for the teacher's training, or None."""
        return None

    def names(self, group: str | None = None) -> list[str]:
        """The rows of one group or all, in the catalogue's order."""
        return [name for name, row in EXPERIMENTS.items() if group in (None, row.group)]

    def members(self, name: str) -> list[str]:
        """The rows that a name stands for: all, a group's, or a row's own."""
        groups = {row.group: self.names(row.group) for row in EXPERIMENTS.values()}
        return Named("experiment", {"all": self.names()} | groups | {stage: [stage] for stage in EXPERIMENTS})[name]

    def seeds(self, name: str) -> tuple[int, ...]:
        """The seeds with which a row is trained, its first one first."""
        return self.numbers["seeds"][EXPERIMENTS[name].seeds]

    def listing(self) -> str:
        """The rows, a line each: group, name, seeds and what is asked."""
        lines = []
        for name in self.names():
            row, seeds = EXPERIMENTS[name], ",".join(map(str, self.seeds(name)))
            lines.append(f"{row.group:10} {name:18} seeds {seeds:6} {row.words}: {row.question}")
        return "\n".join(lines)

    def tuning(self) -> TuningRecipe:
        """The recipe of the search."""
        values = self.numbers["common"] | self.numbers["tuning"] | {"teacher": self.recipe("teacher").digest}
        return self._made(TuningRecipe, stage="tuning", seed=0, targets="mean", **values)

    def _made(self, kind: type[Recipe], **values) -> Recipe:
        """A recipe of that kind, with the digest of its profile."""
        earlier = self.profile == "full" and EXPERIMENTS.get(values["stage"], EXPERIMENTS["plain"]).group != "choices"
        return (recipes.EARLIER[kind] if earlier else kind)(**values)

    def teacher(self, name: str, seed: int) -> tuple[str, int]:
        """Row and seed of the run whose soft targets a row's run learns from."""
        row = EXPERIMENTS[name].teacher
        seeds = self.seeds(row)
        return row, seed if seed in seeds else seeds[0]

    def recipe(self, name: str, seed: int = 0) -> Recipe:
        """The recipe of a row's run."""
        row, numbers = EXPERIMENTS[name], self.numbers
        values = {"stage": name, "seed": seed} | numbers["common"] | numbers[row.numbers]
        if row.kind is TeacherRecipe and (file := self.course_file(seed)):
            # The course's file was trained elsewhere: none of our training's numbers describe it.
            values |= {"weights": file, "stem": "imagenet", "fit": Fit(epochs=0, lr=0.0)}
        if row.teacher:
            temperature, alpha = self.setting(row.setting)
            learnt = {"teacher": self.recipe(*self.teacher(name, seed)).digest, "targets": "mean"}
            values |= {"temperature": temperature, "alpha": alpha, **learnt}
        if row.parent:
            values |= {"parent": self.recipe(row.parent, seed).digest, "ratio": row.ratio}
        if row.widths:
            values["widths"] = row.widths
        if row.longer:
            added = numbers[EXPERIMENTS[row.longer].numbers] if row.longer != "itself" else {"sparse": values["sparse"]}
            fits = [values["fit"], *(added[part] for part in ("sparse", "fit") if part in added)]
            values["fit"] = replace(values["fit"], epochs=sum(fit.epochs for fit in fits))
        if row.longer == "itself":
            values["sparse"] = replace(values["sparse"], epochs=0)
        return changed(self._made(row.kind, **values), dict(row.change))


def read(content: dict) -> Recipe:
    """The recipe of a recipe.json, by its stage: a row's name, or `tuning`."""
    stage = str(content.get("stage"))
    return recipes.read(TuningRecipe if stage == "tuning" else EXPERIMENTS[stage].kind, content)


def changed(recipe: Recipe, change: dict[str, object]) -> Recipe:
    """The recipe with other values; `fit.NAME` is a field of its `fit`.

    `InputError` for a field that it lacks, for its row and seed, and for what the field does not take.
    """
    own, of_fit, fields = {}, {}, vars(recipe) | {f"fit.{name}": value for name, value in vars(recipe.fit).items()}
    fields = {name: value for name, value in fields.items() if name not in ("stage", "seed")}
    for name, value in change.items():
        if name not in fields:
            raise InputError(f"{recipe.stage} takes no {name}: expected one of {', '.join(fields)}")
        (of_fit if name.startswith("fit.") else own)[name.removeprefix("fit.")] = value
    return replace(recipe, **{"fit": replace(recipe.fit, **of_fit)} | own)
