"""Images in, two augmented views out: data sources, splits, decoded or streamed image sets, and batch augmentation.

`headsearch.data.load.load_data` is the one door. `headsearch.data.augment.Views` makes the views, `headsearch.data.recipe` holds their recipe.
"""
