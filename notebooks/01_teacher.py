# %% [markdown]
# # 1. The teacher
#
# **Question.** The assignment gives a well-trained ResNet-50 and asks for a network of at most 100,000 parameters that is
# no worse. What does the large network know that the small one could learn?
#
# The course's file `resnet-50.pth` is not public, so this notebook trains its own teacher on the same data. Whoever has the
# file can use it instead: `hw2 train teacher --weights resnet-50.pth`. The weights (94 MB) are not committed; what the
# later notebooks need of the teacher is: its logits for every training image and every view.

# %%
try:
    from hw2 import data, networks, report
    from hw2.experiments.train import obtain
except ImportError as error:
    hint = "hw2 is not in this kernel's Python: choose the kernel of .venv (`make setup` makes it), or `pip install -e ..`"
    error._render_traceback_ = lambda: [hint]
    raise

fashion = data.fashion_mnist()
train, validation = fashion.split
print(f"{len(train):,} images for training, {len(validation):,} for validation, {len(fashion.test_labels):,} for the test")

# %% [markdown]
# ## The data
#
# Ten classes of clothes, 28 x 28 grey pixels. Four of them are tops with sleeves, which already suggests where mistakes
# will be.

# %%
report.show("samples")

# %% [markdown]
# ## Training
#
# Torchvision's ResNet-50 with a 10-way `fc`. `obtain` loads the committed run, or trains it where there is
# none: SGD with Nesterov momentum, one cycle of the learning rate, random crops and flips.

# %%
teacher = obtain("teacher")
print(f"profile {teacher.profile}: {teacher.recipe.fit.epochs} epochs, stem {teacher.recipe.stem}")
print(f"parameters: {networks.count_parameters(networks.teacher(teacher.recipe.stem)):,}")
print(f"validation accuracy: {teacher.val_accuracy:.2%}")

# %%
report.show("teacher_curves")

# %% [markdown]
# The file of the course reaches 92.4 % on the test set. This teacher's own number is the one printed above: on two cores it
# gets few epochs, and torchvision's first layers shrink a 28 x 28 image to 7 x 7 before the first block.
#
# ## Where it errs
#
# Rows are true classes, columns predictions, on the validation split.

# %%
report.show("teacher_confusion")

# %% [markdown]
# The errors are not spread evenly: shirts are taken for T-shirts, pullovers and coats, and shoes for other shoes. A
# label says "shirt" and no more; the teacher's output says what a shirt nearly was.
#
# ## What it finds similar
#
# Dividing the logits by a temperature T before the softmax makes this visible. Shown are images on which the teacher is
# right and least sure. At T = 1 the runner-up can be seen only because they are hard; a higher temperature shows the
# classes further down the list.

# %%
report.show("soft_targets")

# %% [markdown]
# ## What goes on to the student
#
# For each view (one crop and flip for every image; view 0 is the image as it is) the logits are stored in half precision,
# so that the student later meets the teacher's opinion of exactly the crop that it sees.

# %%
views, images, classes = teacher.soft_targets.shape
print(f"{views} views x {images:,} images x {classes} logits")
assert views == teacher.recipe.views and images == len(fashion.train_labels)
