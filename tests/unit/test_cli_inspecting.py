"""Models side by side: given these cards, then those differences."""

from headrace.cli.inspecting import compared

CARD = {
    "release": 1, "recipe": "own", "run": "a", "seed": 0, "parent": None, "request": "first", "learned": "0 to 9",
    "rows": 9, "left_out": 0, "scores": {"accuracy": 0.5}, "aliases": [], "artifact": "model/a", "bytes": 9,
    "python": "3.11", "river": "0.26", "lost": None, "parameters": {"l2": "0.0"}, "weights": {"x": 1.0},
}  # fmt: skip


def test_models_differ_in_facts_parameters_and_weights():
    told = compared(CARD, CARD | {"recipe": "fast", "parameters": {"l2": "0.1"}, "weights": {"x": 2.0}})
    assert told == {
        "facts": {"recipe": ("own", "fast")},
        "parameters": {"l2": ("0.0", "0.1")},
        "weights": {"x": (1.0, 2.0)},
    }
    assert not any(compared(CARD, CARD).values())


def test_a_model_whose_bytes_are_lost_is_not_said_to_weigh_nothing():
    lost = CARD | {"bytes": None, "lost": "there is no artifact", "parameters": {}, "weights": {}}
    told = compared(CARD, lost)
    assert (told["parameters"], told["weights"]) == ({}, {})
    assert told["facts"]["artifact"][1] == "model/a (there is no artifact)"
