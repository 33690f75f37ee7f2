"""Every built-in family holds what `raymill.training.testing` asks of a model."""

import pytest

from raymill.data.schema import InputSchema
from raymill.errors import SpecError
from raymill.training.families import FAMILIES, build
from raymill.training.families.cnn import CNN
from raymill.training.families.ft_transformer import FTTransformer
from raymill.training.families.gbdt import GBDT
from raymill.training.families.image_resnet import ImageResNet
from raymill.training.families.linear import Linear
from raymill.training.families.mlp import MLP
from raymill.training.families.resnet import ResNet
from raymill.training.families.text import TextNet
from raymill.training.job import make_job
from raymill.training.loop import fit
from raymill.training.params import (
    DEFAULT_SPACES,
    FAMILY_PARAMS,
    INPUTS,
    CNNParams,
    FTTransformerParams,
    ImageResNetParams,
    MLPParams,
    ResNetParams,
    TextParams,
)
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.training.testing import (
    CATEGORIES,
    IMAGES,
    IMAGES_AND_TABLE,
    NUMBERS,
    TABLE,
    TEXTS,
    TEXTS_AND_TABLE,
    FamilySuite,
    random_batch,
)

READ_TEXTS = (TABLE, NUMBERS, CATEGORIES, TEXTS, TEXTS_AND_TABLE)
SMALL = {"width": 32, "blocks": 2, "heads": 4}


class TestLinear(FamilySuite):
    factory, learns, schemas = Linear, False, READ_TEXTS


class TestMLP(FamilySuite):
    factory, params, schemas = MLP, MLPParams(width=64).model_dump(), READ_TEXTS


class TestMLPPiecewise(FamilySuite):
    factory, params = MLP, MLPParams(width=64, numeric_embedding="piecewise").model_dump()


class TestMLPPlain(FamilySuite):
    factory, params = MLP, MLPParams(width=64, numeric_embedding="none").model_dump()


class TestResNet(FamilySuite):
    factory, params = ResNet, ResNetParams(width=48).model_dump()


class TestFTTransformer(FamilySuite):
    factory, params = FTTransformer, FTTransformerParams(**SMALL).model_dump()
    schemas = READ_TEXTS


class TestFTTransformerPlain(FamilySuite):
    factory = FTTransformer
    params = FTTransformerParams(**SMALL, numeric_embedding="none").model_dump()


class TestCNN(FamilySuite):
    factory, params = CNN, CNNParams(channels=8, flip=True, crop=1).model_dump()
    schemas = (IMAGES, IMAGES_AND_TABLE)


class TestImageResNet(FamilySuite):
    factory, params = ImageResNet, ImageResNetParams(channels=4, crop=1).model_dump()
    schemas = (IMAGES, IMAGES_AND_TABLE)


class TestText(FamilySuite):
    factory, params = TextNet, TextParams(width=32).model_dump()
    schemas = (TEXTS, TEXTS_AND_TABLE)


class TestTextTransformer(TestText):
    params = TextParams(width=32, encoder="transformer").model_dump()


class TestTextWithoutOrder(TestText):
    params = TextParams(width=32, encoder="none").model_dump()


def grown(schema: InputSchema) -> GBDT:
    """Trees that were fitted to some rows."""
    made = make_job(ModelSpec(family="gbdt"), TrainingSpec(epochs=1, gpu="never"), None, schema, None)
    rows = Shard([{name: t.numpy() for name, t in random_batch(schema, 100).items()}])
    made.params["rounds"] = 5
    model = GBDT(schema)
    model.load_state_dict(fit(made, rows, rows, InlineSession()).weights)
    return model


class TestGBDT(FamilySuite):
    factory, gradients = staticmethod(grown), False


def test_every_family_is_listed_everywhere() -> None:
    assert set(FAMILIES) <= set(FAMILY_PARAMS) == set(INPUTS) == set(DEFAULT_SPACES)


def test_build_fills_in_defaults() -> None:
    for family in FAMILIES:
        schema = {"image": IMAGES, "table": TABLE, "text": TEXTS_AND_TABLE}[INPUTS[family][0]]
        assert build(family, {}, schema)(random_batch(schema, 2)).shape == (2, schema.outputs)


def test_a_family_that_lacks_what_it_needs_or_leaves_a_column_unread_is_refused() -> None:
    for family, schema, said in (("cnn", TABLE, "needs an image column"),
                                 ("resnet", IMAGES, "needs a column of numbers"),
                                 ("mlp", IMAGES_AND_TABLE, "must be able to read every column"),
                                 ("text", TABLE, "needs a text column")):
        with pytest.raises(SpecError, match=said):
            make_job(ModelSpec(family=family), TrainingSpec(), None, schema, None)
