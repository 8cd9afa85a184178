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
    import hw2
except ImportError as error:
    error._render_traceback_ = lambda: ["hw2 is missing here: choose the kernel of .venv, or run `pip install -e ..`"]
    raise

# %%
import pandas as pd
import torch
import torch_pruning as tp
from torch.nn import functional

from hw2 import data, networks, report, views
from hw2.experiments.train import obtain

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
# ## What a network sees
#
# In each epoch a network sees another *view* of every image: a crop that is moved by up to two pixels, and perhaps a flip.
# Both are computed from the view's number, so the same view can be made again at any time. View 0 is the image as it is.

# %%
report.show("shown_views")

# %% [markdown]
# The cut images are scaled. Over the training images their pixels then have mean 0 and standard deviation 1, which the
# first convolution can start from.

# %%
inputs = views.normalise(fashion.train_images[train[:5000]])
print(f"one image: {tuple(inputs.shape[1:])}, three equal channels")
print(f"mean {abs(inputs.double().mean()):.2f}, standard deviation {inputs.double().std():.2f}")

# %% [markdown]
# ## A training step in plain code
#
# `training.fit` repeats four lines for each batch: predict, measure the loss, compute its gradient, step. Three such steps of
# a new ResNet-14 on one batch of 128 images lower the loss each time.

# %%
torch.manual_seed(0)
network, losses = networks.ResNet14(), []
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
for _ in range(3):
    logits = network(inputs[:128])
    loss = functional.cross_entropy(logits, fashion.train_labels[train[:128]])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[0] > losses[1] > losses[2]

# %% [markdown]
# ## Two stems
#
# Torchvision's ResNet-50 was made for images of 224 x 224 pixels. Its stem, the first convolution and a pooling, divides each
# side by four. With stride 1 in that convolution, twice as many pixels a side reach the blocks, for about four times the work.

# %%
rows, image = [], torch.zeros(1, 3, 28, 28)
for stem in ("imagenet", "stride1"):
    network = networks.teacher(stem).eval()
    macs, parameters = tp.utils.count_ops_and_params(network, image)
    side = network.maxpool(network.conv1(image)).shape[-1]
    words = {"before the blocks": f"{side} x {side} pixels", "multiply-adds": f"{macs / 1e6:.0f} M"}
    rows.append({"stem": stem, **words, "parameters": f"{parameters:,}"})
pd.DataFrame(rows).set_index("stem")

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
