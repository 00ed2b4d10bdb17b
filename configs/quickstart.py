"""The whole mission in miniature: every command's config, offline, in about five minutes."""

from ml_collections import ConfigDict

from forget_jax.configs import associate, evaluate, factoids, pretrain, replay, scaling


def get_config() -> ConfigDict:
    """One config a stage, in the order they run."""
    c = ConfigDict({"base": ""})  # one is trained
    context = 128

    c.pretrain = pretrain.get_config()
    c.pretrain.model.context = context
    # narrower than `pretrain` by itself makes it: every later stage trains this base
    c.pretrain.model.width, c.pretrain.model.mlp_width = 64, 176
    c.pretrain.train.steps = 288
    c.pretrain.train.lr = 4e-3

    c.associate = associate.get_config()

    c.predict = evaluate.get_config()
    c.predict.split.test_tasks = ("1", "4", "7", "10")
    # all but auto, which takes longer to compile than this matrix to complete
    c.predict.methods = tuple(name for name in c.predict.methods if name != "auto")

    c.replay = replay.get_config()
    c.replay.replay.method = "mixture"

    c.scaling = scaling.get_config()
    c.scaling.ranks = (1, 4, 16)
    c.scaling.steps = (4, 8, 16, 32)
    c.scaling.upstream = tuple(
        f"{spec.partition('[')[0]}[:{rows}]"
        for spec, rows in zip(c.associate.upstream, (20, 30, 30), strict=True)
    )

    c.factoids = factoids.get_config()
    c.factoids.stage_a = "builtin:short_facts[:48]"
    c.factoids.stage_b = "builtin:short_facts/B[:48]"
    c.factoids.arms = ("naive", "redraw:10")

    # Of few steps a further program costs more than the padding it saves.
    for stage in (c.associate, c.replay, c.scaling):
        stage.train.buckets = stage.score.buckets = 2
        stage.data.context = context
    return c
