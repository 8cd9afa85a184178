"""What the JSON files under runs/ must hold, a class a file. Pydantic checks them when read."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field, NonNegativeInt, PositiveInt
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Metrics(TypedDict):
    """metrics.json; the test set's counts are None until it was read for the run."""

    val_correct: NonNegativeInt
    val_total: PositiveInt
    test_correct: NonNegativeInt | None
    test_total: PositiveInt | None
    parameters: PositiveInt
    wall_s: Amount
    processor_s: NotRequired[Amount]
    peak_memory_bytes: PositiveInt | None
    phases: NotRequired[dict[str, NonNegativeInt]]
    mirrored: NotRequired["Mirrored"]


class Mirrored(TypedDict):
    """Correct images by the mean of the logits of an image and of its mirror image."""

    val_correct: NonNegativeInt
    test_correct: NonNegativeInt


class Environment(TypedDict):
    """environment.json, as at the first step."""

    packages: dict[str, str]
    python: str
    system: str
    device: Literal["cpu", "cuda"]
    hardware: str
    cores: PositiveInt
    threads: PositiveInt
    code: Sha256
    commit: str | None
    instruction_set: str
    flags: list[str]
    lowered_by: dict[str, str]
    resumed: NotRequired[list["Resumed"]]  # other environments that trained on or finished the run


class Resumed(TypedDict):
    epochs_done: NonNegativeInt  # by then
    environment: Environment


class Delivered(TypedDict):
    run: Annotated[str, Field(pattern=r"^[\w.-]+/\w+-s\d+$")]
    sha256: Sha256


class GroupNorms(TypedDict):
    """group_norms.json: a list for each group."""

    before: list[list[Amount]]
    after: NotRequired[list[list[Amount]]]
