"""Every built-in family holds what `raymill.training.testing` asks of a model."""

from raymill.training.families import build
from raymill.training.families.cnn import CNN
from raymill.training.families.linear import Linear
from raymill.training.families.mlp import MLP
from raymill.training.params import FAMILY_PARAMS, CNNParams, MLPParams
from raymill.training.testing import IMAGES, IMAGES_AND_TABLE, TABLE, FamilySuite, random_batch


class TestLinear(FamilySuite):
    factory, learns = Linear, False


class TestMLP(FamilySuite):
    factory, params = MLP, MLPParams(width=64).model_dump()


class TestMLPPiecewise(FamilySuite):
    factory, params = MLP, MLPParams(width=64, numeric_embedding="piecewise").model_dump()


class TestMLPPlain(FamilySuite):
    factory, params = MLP, MLPParams(width=64, numeric_embedding="none").model_dump()


class TestCNN(FamilySuite):
    factory, params = CNN, CNNParams(channels=8, flip=True).model_dump()
    schemas = (IMAGES, IMAGES_AND_TABLE)


def test_build_fills_in_defaults() -> None:
    for family in FAMILY_PARAMS:
        schema = IMAGES if family == "cnn" else TABLE
        assert build(family, {}, schema)(random_batch(schema, 2)).shape == (2, schema.outputs)
