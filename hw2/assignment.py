"""The homework's numbers: what it allows and asks for, and what the report answered."""

LIMIT = 100_000  # parameters at most
BASELINE = 0.924  # test accuracy at least: that of the course's teacher
WORDS = 200  # of the explanation of methods at most
AUTHOR, STUDENT_ID = "陳彥儒", "311581010"
REFERENCES = ("DefangChen/SimKD", "VainF/Torch-Pruning")

RATIO = 0.29  # pruning ratio; any in (0.28125, 0.296875] leaves the same widths
WIDTHS = (16, 16, 32, 64)  # of ResNet-14: stem and three stages, 175,258 parameters
NARROW = (11, 11, 22, 45)  # pruned by RATIO: 85,956 parameters
