"""A released definition, for tests that only look at some of it."""

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import ChallengerSpec, ReleaseDefinition
from headrace.schemas.policies import Policies

ONE_NUMBER = ContractSpec(name="Rain", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type="bool"))
DIGESTS = {
    "contract_digest": "c", "policies_digest": "p", "recipe_digest": "r", "source_digest": "s", "source_uri": "u",
}  # fmt: skip


def definition_of(contract=ONE_NUMBER, policies=None, recipe="r", challengers=None):
    """The definition of a release: this contract, these policies (the defaults without any), digests that name none.

    `challengers` are digests of recipes by name.
    """
    others = tuple(ChallengerSpec(name=name, recipe_digest=one) for name, one in (challengers or {}).items())
    named = DIGESTS | {"recipe_digest": recipe, "challengers": others}
    return ReleaseDefinition(contract=contract, policies=policies or Policies(), **named)
