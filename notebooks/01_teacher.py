# %% [markdown]
# # 1. The teacher
#
# **Question.** The assignment gives a well-trained ResNet-50 and asks for a network of at most 100,000 parameters that is
# no worse. What does the large network know that the small one could learn?
#
# **You will see** the data and its augmentation, a training step in plain code, and two stems of a ResNet-50. Then you see where
# the teacher errs, and what its soft targets say.
#
# **Time.** The notebook loads finished runs: half a minute. Where `runs/` is empty it trains, and says before for how long.
#
# **Read on:** `hw2/views.py`, `hw2/training.py`; He et al. 2016 (arXiv:1512.03385). Next: [2. Distillation](02_distillation.ipynb).
#
# The course's file `resnet-50.pth` is not public, so we train our own teacher. Whoever has the file uses it in place of training:
# `hw2 train teacher --weights resnet-50.pth`. Git holds the teacher's logits for every image, and not its weights (94 MB).

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
# Fashion-MNIST has ten classes of clothes, in grey images of 28 x 28 pixels. Four classes are tops with sleeves: expect mistakes
# between them.

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
# The teacher is torchvision's ResNet-50 with a 10-way `fc`. `obtain` loads the committed run, or trains one: SGD with
# Nesterov momentum, one cycle of the learning rate, a new view in every epoch.

# %%
teacher = obtain("teacher")
print(f"profile {teacher.profile}: {teacher.recipe.fit.epochs} epochs, stem {teacher.recipe.stem}")
print(f"parameters: {networks.count_parameters(networks.teacher(teacher.recipe.stem)):,}")
print(f"validation accuracy: {teacher.val_accuracy:.2%}")

# %%
report.show("teacher_curves")

# %% [markdown]
# The course's own teacher reaches 92.4 % on the test set. Is ours above its students? The networks side by side, means over
# the seeds:

# %%
report.table("results")

# %% [markdown]
# ## Where does it err?
#
# Between garments of one shape. Rows are true classes, columns predictions, on the validation split. Squares hold counts of images; the
# colour shows errors only.

# %%
report.show("teacher_confusion")

# %% [markdown]
# Shirts are taken for T-shirts, pullovers and coats, and shoes for other shoes. A label says "shirt" and no more. The teacher's
# output says what a shirt nearly was.
#
# ## What does it find similar?
#
# The softmax of the logits, divided by a temperature T, tells. The first image is the one on which the teacher is surest. On the three
# others it is right, and least sure. The higher the temperature, the more of the other classes shows.

# %%
report.show("soft_targets")

# %% [markdown]
# ## What goes on to the student
#
# The teacher's logits, in half precision, for every view of every image. They are computed once, so a student's training never runs
# the ResNet-50.

# %%
views, images, classes = teacher.soft_targets.shape
print(f"{views} views x {images:,} images x {classes} logits")
assert views == teacher.recipe.views and images == len(fashion.train_labels)

# %% [markdown]
# ## What we learned

# %%
wrong = 1 - teacher.val_accuracy
names = [data.CLASSES.index(name) for name in ("T-shirt/top", "Pullover", "Coat", "Shirt")]
logits, labels = teacher.soft_targets[0][validation], fashion.train_labels[validation]
tops = sum((labels == name) & (logits.argmax(1) != labels) for name in names).sum() / (logits.argmax(1) != labels).sum()
print(f"The teacher is wrong on {wrong:.1%} of the validation images; {tops:.0%} of these show tops with sleeves.")
print(f"Its soft targets cover {len(teacher.soft_targets)} views of {len(train) + len(validation):,} images.")

# %% [markdown]
# ## Try it yourself
#
# Predict first, then compute. Each task takes a minute at most.
#
# 1. **Unmoved images.** Crops move by -2 to 2 pixels in both directions, and every second image is flipped. Which share of the images
#    does view 1 leave as it is? Check your answer with `views.view(1)`.
# 2. **One more epoch.** Train ResNet-14 on labels for three epochs in profile smoke. How many rows has its history?
#
# <details><summary>Solutions</summary>
#
# ```python
# rows, columns, flips = views.view(1)
# share = ((rows == 2) & (columns == 2) & ~flips).double().mean()
# assert abs(share - 1 / 25 / 2) < 0.003  # one of 25 places, unflipped half of the time
#
# run = obtain("plain", profile="smoke", **{"fit.epochs": 3})
# assert len(run.history) == 3
# ```
#
# </details>
