# %% [markdown]
# # 3. Pruning
#
# **Question.** The distilled student has 175,258 parameters, the assignment allows 100,000. Which channels can go, and
# what does the accuracy do on the way?
#
# In a residual network channels hang together: what one convolution of a stage puts out, the shortcut adds to what the
# others put out, so they can only leave together. Torch-Pruning's `GroupNormPruner` (DepGraph, CVPR 2023) finds these groups.
# It has nothing to do with the layer `nn.GroupNorm`: the network keeps its BatchNorm.
#
# 1. **Sparse learning**: a regulariser pushes the weak groups' norms towards zero while training goes on.
# 2. **Pruning** removes the same share of channels from every group; `fc` keeps its ten outputs.
# 3. **Recalibration**: BatchNorm's running statistics belong to the wider network; they are measured again.
# 4. **Fine-tuning** with the same soft targets as before.

# %%
from hw2 import networks, outcomes, plots, pruning, stages

compressed, distilled = stages.compressed(), stages.distilled()
recipe = compressed.recipe
print(f"ratio {recipe['ratio']}, regulariser {recipe['reg']:g}")
print(f"{recipe['sparse']['epochs']} epochs of sparse learning, {recipe['fit']['epochs']} of fine-tuning")

# %% [markdown]
# ## What is left
#
# Pruning the distilled network at this ratio, here and now:

# %%
before, after = distilled.network(), pruning.prune(distilled.network(), recipe["ratio"])
for name, network in (("distilled", before), ("pruned", after)):
    print(f"{name:10} widths {network.widths}, {networks.count_parameters(network):,} parameters")
removed = 1 - networks.count_parameters(after) / networks.count_parameters(before)
print(f"{removed:.2%} of the parameters removed")
assert after.widths == compressed.network().widths == (11, 11, 22, 45)
assert networks.count_parameters(compressed.network()) == 85_956

# %% [markdown]
# ## The accuracy on the way
#
# Removing channels in one shot breaks the function that the network computes, although most of what it learnt is still
# there: measuring BatchNorm's statistics again, without training any weight, brings much of it back. All seeds of the
# chain, mean and standard deviation; in the figure, the delivered run, where the dashed line is the same pruning
# without sparse learning before it.

# %%
outcomes.phase_table().set_index("phase")

# %%
plots.show("phases")

# %% [markdown]
# Epoch by epoch: sparse learning up to the dashed line, fine-tuning after it. The dip is not the pruning but the learning
# rate, which rises again for fine-tuning. The last point is the delivered network's: no epoch was picked afterwards.

# %%
plots.show("compressed_curves")
